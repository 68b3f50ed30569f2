"""The benchmark: the service beside a bare loop on the same Kafka and Postgres, in one run: ``make bench``.

Looked at by people; no test asserts on its figures. ``python -m tests.tools.bench --help`` lists the options.
"""
