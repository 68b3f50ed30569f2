"""``waypost erase``: erase a session, and write down what still holds its bytes.

May import the rest of the worker and ``cli.support``, but no other command group.
"""
