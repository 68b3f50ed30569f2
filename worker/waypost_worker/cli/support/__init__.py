"""Share what several commands need: options, connections, output and progress.

May import the rest of the worker, but no command.
"""
