"""``waypost expire``: remove the checkpoints of idle sessions.

May import the rest of the worker and ``cli.support``, but no other command group.
"""
