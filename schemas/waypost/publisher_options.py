"""The old place of :class:`waypost.PublisherOptions`, deprecated."""

from waypost.deprecation import moved

__getattr__ = moved(__name__, "PublisherOptions")
