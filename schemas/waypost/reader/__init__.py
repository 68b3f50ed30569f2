"""Read sessions and checkpoints back from Postgres.

Owns the pools, the statements and which of several databases holds a session. May import ``encryption``,
``wire``, ``model``, ``kafka`` and the modules next to them, but neither the publisher nor the subscriber.
"""
