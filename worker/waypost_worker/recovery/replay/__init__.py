"""Rebuild Postgres from the command topic, or from the results topic.

May import the rest of ``recovery``, the owner's ports and fold, but not ``recovery.verify``.
"""
