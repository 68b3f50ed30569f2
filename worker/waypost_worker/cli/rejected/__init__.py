"""``waypost rejected``: list, show, retry and purge rejected commands.

May import the rest of the worker and ``cli.support``, but no other command group.
"""
