"""Implement the owner's logs on aiokafka, with the epoch-fenced producer, group membership and topic administration.

May import ``partition`` for its ports, and ``findings``; must not know Postgres.
"""
