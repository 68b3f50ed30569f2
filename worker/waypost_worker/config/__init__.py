"""Read the settings, secrets in files, and the arguments of every Kafka client.

May import ``kafka`` for the shape of a connection, and nothing else of the worker.
"""
