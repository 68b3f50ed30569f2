"""Serve the probes and metrics of a worker over HTTP.

May import ``telemetry``. Independent of owners.
"""
