"""Read the settings, the secrets that lie in files, and what every Kafka client is made with.

May import nothing else of the worker.
"""
