"""Load SQL by name. No statement is built from strings.

The files write ``waypost.`` before every name, so they can be read and tried as they are. For another schema, that
word is replaced when a file is read. A search path would need no replacing, but poolers that give each transaction
another server connection lose it or reject it, and the one of a role or database can't differ between a worker and a
replay into a side schema.
"""

import re
from functools import cache
from importlib.resources import files
from typing import Final

from waypost.errors import InvalidArgumentError, quoted

DEFAULT_SCHEMA: Final = "waypost"
_SCHEMA_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_SCHEMA_IN_SQL: Final = re.compile(
    r"(?<=\bcreate schema )waypost\b|(?<=\b[io]n schema )waypost\b|(?<=to_regnamespace\(')waypost\b|\bwaypost(?=\.)"
)


@cache
def load_statement(package: str, name: str, schema: str = DEFAULT_SCHEMA) -> str:
    """Return the SQL in ``sql/{name}.sql`` of a package, for a schema.

    Raises:
        InvalidArgumentError: ``schema`` is not a plain identifier.
    """
    return for_schema(files(package).joinpath("sql", f"{name}.sql").read_text("utf-8"), schema)


def for_schema(text: str, schema: str) -> str:
    """Return SQL with ``schema`` in place of ``waypost``, quoted, so that it may be a reserved word.

    Raises:
        InvalidArgumentError: ``schema`` is not a plain identifier.
    """
    if schema == DEFAULT_SCHEMA:
        return text
    return _SCHEMA_IN_SQL.sub(f'"{check_schema_name(schema)}"', text)


def check_schema_name(schema: str) -> str:
    """Return ``schema``.

    Raises:
        InvalidArgumentError: It is not a plain identifier.
    """
    if not isinstance(schema, str) or _SCHEMA_NAME.fullmatch(schema) is None:
        raise InvalidArgumentError(
            f"the schema name {quoted(schema)} can't be used: take a-z, 0-9 and _, no digit first, at most 63 "
            "characters"
        )
    return schema
