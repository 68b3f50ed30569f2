"""Own one partition: acquire, fetch, apply, commit, emit.

Holds the owner, its ports and the fold. May import the library's ``model`` and ``wire``, and knows no broker and no
database.
"""
