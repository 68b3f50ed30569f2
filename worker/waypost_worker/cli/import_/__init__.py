"""``waypost import``: take threads over from other checkpointers.

May import the rest of the worker and ``cli.support``, but no other command group.
"""
