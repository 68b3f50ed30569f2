"""Encryption of checkpoint data at the edges, where it enters and leaves.

Owns session keys, where they are kept, how they are wrapped, and what encrypted data looks like. May import
``discovery``, ``wire`` and ``model``; must not know Kafka, nor a publisher, subscriber or reader.
"""
