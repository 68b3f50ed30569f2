"""SQL by name, from the files in ``sql/``. No statement is built from strings.

The files write ``waypost.`` before every name, so they can be read and tried as they are and work behind
poolers that lose the search path. For another schema that qualifier is exchanged.
"""

import re
from functools import cache
from importlib.resources import files
from typing import Final

DEFAULT_SCHEMA: Final = "waypost"
_SCHEMA_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_QUALIFIER: Final = re.compile(r"\bwaypost\.")


def check_schema_name(schema: str) -> str:
    """``schema`` if it is a plain lower-case identifier, else ValueError."""
    if _SCHEMA_NAME.fullmatch(schema) is None:
        raise ValueError(f"the schema name {schema!r} must be a-z, 0-9 and _, at most 63 characters")
    return schema


def for_schema(text: str, schema: str) -> str:
    """``text`` with every ``waypost.`` qualifier and the schema's own creation meaning ``schema``."""
    if schema == DEFAULT_SCHEMA:
        return text
    check_schema_name(schema)
    text = _QUALIFIER.sub(f"{schema}.", text)
    return text.replace("create schema if not exists waypost;", f"create schema if not exists {schema};")


@cache
def statement(name: str, schema: str = DEFAULT_SCHEMA) -> str:
    """The statement in ``sql/{name}.sql``."""
    text = files("waypost_worker.postgres").joinpath("sql", f"{name}.sql").read_text()
    return for_schema(text, schema)
