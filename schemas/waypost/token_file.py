"""The old place of :class:`waypost.TokenFile`, deprecated."""

from waypost.deprecation import moved

__getattr__ = moved(__name__, "TokenFile")
