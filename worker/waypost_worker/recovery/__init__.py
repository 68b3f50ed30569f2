"""Rebuilding state from the log, and doubting it: replay, verify, time travel. Knows the owner's ports and fold,
no broker and no database.
"""
