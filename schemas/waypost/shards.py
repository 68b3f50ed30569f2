"""Which of several databases holds what: the list of DSNs, the map, and what a database has noted of it. Pure.

Partition p is stored entirely in shard p mod N, where N is the length of the list. A database in a list of several
records its place (`waypost.shard`), and that record is compared with the place in the given list.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

from waypost.errors import InvalidArgumentError, ShardMapError

_NEXT: Final = re.compile(r"\s+(?=postgres(?:ql)?://)")
_HOW: Final = (
    "Give the databases in the list, and in the order, in which they were recorded; see docs/sharding.md"
)


class ShardSlot(NamedTuple):
    """The place of a database: ``shard`` of ``shards``, counted from 0, in the set ``set_id`` (None: not known)."""

    shard: int
    shards: int
    set_id: UUID | None = None


#: A database that holds all partitions.
ONLY: Final = ShardSlot(0, 1)


def dsn_list(dsns: str | Sequence[str]) -> list[str]:
    """One DSN for each shard. A text separates them by white space, which no URL contains; commas separate hosts."""
    listed = _NEXT.split(dsns.strip()) if isinstance(dsns, str) else dsns
    if not isinstance(listed, list | tuple) or not all(isinstance(one, str) for one in listed):
        # Not shown: there may be a password in it.
        raise InvalidArgumentError(
            f"A DSN is a string, and several are a list of strings, not a {type(dsns).__name__}. Nothing was connected."
        )
    return list(listed)


def server_name(dsn: str) -> str:
    """Return host, port and database of a DSN as a phrase, without user and password."""
    try:
        parts = urlsplit(dsn)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:  # several hosts, or a port of letters
        return "Postgres"
    return f"Postgres at {parts.hostname or 'the default host'}{port}{parts.path}"


def shard_of(partition: int, shards: int) -> int:
    """The shard that holds a partition."""
    return partition % shards


def check_place(noted: ShardSlot | None, used: bool, given: ShardSlot) -> None:
    """Raise ShardMapError unless a database may be used in the given place.

    ``noted`` is its own record, None without one; ``used`` is whether it holds positions of partitions. Without a
    record it is free, or, once used, the only one of its deployment.
    """
    found = noted if noted is not None else ONLY if used else given
    if found.shards != given.shards:
        raise ShardMapError(
            f"{_name(given)} was recorded as {_name(found)}: with another number of databases, partitions "
            f"would be looked up in the wrong database. Nothing was changed. {_HOW}, or rebuild into new ones"
        )
    if found.shard != given.shard:
        raise ShardMapError(
            f"{_name(given)} was recorded as {_name(found)}: the list is in a different order, or names one database "
            f"twice. Nothing was changed. {_HOW}"
        )
    if found.set_id is not None and given.set_id is not None and found.set_id != given.set_id:
        raise ShardMapError(
            f"{_name(given)} belongs to another set of databases than those before it in the list. Nothing was "
            f"changed. {_HOW}"
        )


def _name(place: ShardSlot) -> str:
    if place.shards == 1:
        return "the only database of a deployment"
    return f"shard {place.shard} of {place.shards}"
