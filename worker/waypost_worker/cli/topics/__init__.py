"""``waypost topics``: create and check the topics, adopt new ones, and print ACLs.

May import the rest of the worker and ``cli.support``, but no other command group.
"""
