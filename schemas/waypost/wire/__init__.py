"""Turn bytes into meaning and back: topics, envelopes, bodies, results and the schemas that describe them.

May import ``model``, ``arguments`` and ``errors``, and no I/O library.
"""
