"""What the command topic alone says must be in Postgres and in the results topic, folded without the worker.

The semantics are those of tests/properties/naive.py; envelopes and bodies are read by the contract's code.
"""
