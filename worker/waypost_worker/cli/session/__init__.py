"""``waypost session``: look at sessions, and move, copy, fork or roll them back.

May import the rest of the worker and ``cli.support``, but no other command group.
"""
