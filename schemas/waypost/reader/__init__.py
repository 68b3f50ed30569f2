"""Read sessions and checkpoints back from Postgres.

Owns the pools, the statements and which of several databases holds a session. May import ``wire``, ``model`` and
the floor below, but neither the publisher nor the subscriber.
"""
