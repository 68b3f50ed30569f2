"""The benchmark of ``make bench``: the service and a bare loop on the same Kafka and Postgres, in one run.

Looked at by people; no test asserts on its figures. ``python -m tests.tools.bench --help`` lists the options.
"""
