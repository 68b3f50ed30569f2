"""``waypost results``: records in the results topic that no worker wrote.

May import the rest of the worker and ``cli.support``, but no other command group.
"""
