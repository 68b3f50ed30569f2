"""Read sessions and checkpoints back from Postgres.

Owns the pools, the statements and which database of several holds a session. May import ``wire``, ``model``,
``shards`` and ``errors``, but neither the publisher nor the subscriber.
"""
