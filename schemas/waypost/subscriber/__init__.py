"""Consume results, dispatch them to handlers, and keep what no handler can process as dead letters.

May import ``wire``, ``model``, ``kafka`` and ``errors``, but neither the publisher nor the reader.
"""
