"""Faults on real servers and real worker processes; each ends with the oracle's verdict: ``make faults``."""
