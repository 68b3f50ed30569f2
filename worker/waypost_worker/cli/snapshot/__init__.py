"""``waypost snapshot``: take, list, check, restore and prune snapshots.

May import the rest of the worker and ``cli.support``, but no other command group.
"""
