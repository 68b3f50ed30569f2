"""Accept commands in microseconds and deliver them to Kafka, in order and once.

Owns the buffer, the sender and the spool. May import ``encryption``, ``wire``, ``model``, ``kafka`` and the
modules next to them, but neither the reader nor the subscriber.
"""
