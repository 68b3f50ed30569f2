"""Accept commands in microseconds and deliver them to Kafka, in order and once.

Owns the buffer, the sender and the spool. May import ``wire``, ``model``, ``kafka`` and the floor below.
"""
