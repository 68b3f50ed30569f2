"""``waypost worker``: run one worker process, or several under a supervisor.

May import the rest of the worker and ``cli.support``, but no other command group.
"""
