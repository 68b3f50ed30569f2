"""The owner's logs on aiokafka, the epoch-fenced producer, group membership and topic administration.

Knows nothing of Postgres.
"""
