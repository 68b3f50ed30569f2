"""``waypost commands``: skip a command at which a partition is refused.

May import the rest of the worker and ``cli.support``, but no other command group.
"""
