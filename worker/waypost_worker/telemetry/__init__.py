"""Turn what owners report into metrics, health, logs and traces.

May import ``partition`` for its observer and ``config``; how it is served is up to ``web``.
"""
