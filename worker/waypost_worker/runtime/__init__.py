"""Run one worker process: start, own partitions, drain, stop.

May import everything of the worker but the command line, the console and the dev server.
"""
