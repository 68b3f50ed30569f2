"""Logs and databases of released formats, and what reads and writes them. See docs/recovery.md, the last section."""
