"""The old place of :func:`waypost.continued_trace`, deprecated."""

from waypost.deprecation import moved

__getattr__ = moved(__name__, "continued_trace")
