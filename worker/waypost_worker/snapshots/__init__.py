"""Snapshots: what Postgres holds of each partition at a stated position, in a directory or in object storage.

Owns their format, how they are taken, checked and restored, and what they still overlap with. Knows Postgres and the
log, and nothing of what commands mean: a snapshot is rows and a position, and the log from there on is the rest.
"""
