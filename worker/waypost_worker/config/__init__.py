"""Read the settings, the secrets that lie in files, and what every Kafka client is made with.

May import ``kafka`` for the shape of a connection, and nothing else of the worker.
"""
