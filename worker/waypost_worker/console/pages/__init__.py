"""The contents of the console's pages, as plain values that templates and the API render.

May import the library, ``operations`` and ``console.text``. Pure: no HTTP, no server.
"""
