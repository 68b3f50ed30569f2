"""Rebuild state from the log, and check it against the log.

Holds replay, verify and what they share. May import ``partition`` for its ports and fold, and knows no broker and no
database.
"""
