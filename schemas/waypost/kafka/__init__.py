"""Share what clients and workers need around aiokafka.

Owns broker addresses, topic lookup, bounded reads and the diagnosis of connection failures. May import
``arguments``, ``errors``, ``backoff`` and ``sharing``, and nothing else of the library.
"""
