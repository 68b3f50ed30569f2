"""Say what a command means: pure decisions and their effects, without clock, randomness or I/O.

May import only ``arguments`` and ``errors``.
"""
