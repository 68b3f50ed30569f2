"""The statements of the worker's own tables, by name."""

from waypost.statements import DEFAULT_SCHEMA as DEFAULT_SCHEMA
from waypost.statements import load_statement


def statement(name: str, schema: str = DEFAULT_SCHEMA) -> str:
    """Return the SQL in ``sql/{name}.sql`` next to this module, for a schema."""
    return load_statement("waypost_worker.postgres", name, schema)
