"""Deliberate bugs, each of which the simulation or a named test must catch: ``python -m tests.mutants``.

The product has no switches for them: a mutant replaces a few words of a function, or of an SQL statement, in the
memory of a process of its own.
"""
