"""Take, check and restore snapshots: the rows of each partition at a stated position.

Owns their format, and how they overlap with the log. May import ``postgres``, ``kafka``, ``recovery`` and
``partition``. Independent of what commands mean: a snapshot is rows and a position, and the log is the rest.
"""
