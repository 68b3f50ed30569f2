"""``waypost replay`` and ``waypost verify``: rebuild Postgres from the log, and compare it with the log.

May import the rest of the worker and ``cli.support``, but no other command group.
"""
