"""SQL by name, from the files in ``sql/``."""

from functools import cache
from importlib.resources import files

from waypost_worker.postgres.statements import for_schema


@cache
def statement(name: str, schema: str) -> str:
    """The statement in ``sql/{name}.sql``."""
    return for_schema(files("waypost_worker.snapshots").joinpath("sql", f"{name}.sql").read_text(), schema)
