"""Consume results, dispatch them to handlers, and keep what no handler can process as dead letters.

May import ``encryption``, ``wire``, ``model``, ``kafka`` and the modules next to them, but neither the publisher nor
the reader.
"""
