"""Deterministic simulation: the real owner code on virtual time, against simulated Kafka and Postgres.

``python -m tests.simulation --seeds 10000`` runs many worlds, each wholly determined by its seed: processes
crash, freeze and race each other for partitions, replies are lost after they took effect, Postgres loses its
last commits. After each the oracle compares every result and row with an independent fold of the log.
"""
