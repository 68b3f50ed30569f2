"""``waypost keys``: the key store, wrapping keys, and their rotation.

May import the rest of the worker and ``cli.support``, but no other command group.
"""
