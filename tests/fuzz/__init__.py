"""Hostile inputs against a real worker process: mutated record batches, envelopes and bodies, and a corpus."""
