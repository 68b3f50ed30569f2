"""Implement the owner's store on asyncpg, with its schema and migrations.

May import ``partition`` and ``recovery`` for their ports, and ``findings``; must not know Kafka.
"""
