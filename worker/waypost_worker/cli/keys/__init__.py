"""``waypost keys``: the key store, wrapping keys, and their rotation."""
