"""``waypost doctor``: check Kafka, Postgres and clocks, and suggest fixes.

May import the rest of the worker and ``cli.support``, but no other command group.
"""
