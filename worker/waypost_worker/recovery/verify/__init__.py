"""Compare Postgres with the fold of the command topic.

May import the rest of ``recovery``, the owner's ports and fold, but not ``recovery.replay``.
"""
