"""Run one worker process: start, own partitions, drain, stop.

May import ``telemetry``, ``config``, ``kafka``, ``postgres``, ``partition`` and ``findings``.
"""
