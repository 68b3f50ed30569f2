"""Retention policies on the command line: the flags that change one, and what Postgres holds that it applies to."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import orjson
from cyclopts import Parameter

from waypost.model.index import Entry, Session
from waypost.model.preview import Preview
from waypost.model.retention import RetentionPolicy
from waypost.model.times import to_micros
from waypost_worker.cli.support.connections import query
from waypost_worker.cli.support.databases import Databases
from waypost_worker.cli.support.output import USAGE, CommandError

_PAGE: Final = 20  # sessions, of up to 10,000 checkpoints
PolicyChanges = Mapping[str, int | float | None]


@Parameter(name="*")
@dataclass(frozen=True)
class PolicyFlags:
    """The fields of a policy; those that are not named stay as they are."""

    max_checkpoints: Annotated[
        int | None, Parameter(help="maximum number of checkpoints that a session keeps")
    ] = None
    compress_after: Annotated[
        int | None, Parameter(help="above this number, keep only the latest checkpoint of each name")
    ] = None
    keep_recent: Annotated[
        int | None, Parameter(help="number of newest checkpoints that compression leaves alone")
    ] = None
    max_age: Annotated[float | None, Parameter(help="age in seconds at which checkpoints are removed")] = None
    no_max_age: Annotated[bool, Parameter(help="remove no checkpoints because of their age")] = False
    encrypted: Annotated[
        bool | None,
        Parameter(
            negative="--no-encrypted", help="accept only encrypted data; a session that does so stays so"
        ),
    ] = None

    def changes(self) -> dict[str, int | float | None]:
        """The named fields; CommandError if they contradict each other."""
        if self.no_max_age and self.max_age is not None:
            raise CommandError("--max-age and --no-max-age contradict each other", USAGE)
        named: dict[str, int | float | None] = {
            "max_checkpoints": self.max_checkpoints,
            "compress_after": self.compress_after,
            "keep_recent": self.keep_recent,
            "max_age": self.max_age,
            "encrypted": self.encrypted,
        }
        changes: dict[str, int | float | None] = {
            name: value for name, value in named.items() if value is not None
        }
        if self.no_max_age:
            changes["max_age"] = None
        return changes


NO_CHANGES: Final = PolicyFlags()


@dataclass(frozen=True, slots=True)
class Retained:
    """A session as retention sees it: its index without command ids, and its partition."""

    session: Session
    partition: int


async def retained_session(databases: Databases, schema: str, session_id: str) -> Retained | None:
    """Return a session, or None if no command of it was ever accepted."""
    for database in databases:
        for row in await database.fetch(query("support/retained", schema), session_id, "", -1, 1):
            return _retained(row)
    return None


async def sessions_by_default(databases: Databases, schema: str, more_than: int) -> AsyncIterator[Retained]:
    """Return all sessions that follow the default policy and have more than this many checkpoints."""
    for database in databases:
        after = ""
        while rows := await database.fetch(query("support/retained", schema), None, after, more_than, _PAGE):
            for row in rows:
                yield _retained(row)
            after = rows[-1]["session_id"]


async def default_policies(databases: Databases, schema: str) -> dict[int, RetentionPolicy]:
    """The default policies of the partitions that a worker has come to."""
    return {
        row["partition"]: _policy(row["default_policy"]) or RetentionPolicy()
        for database in databases
        for row in await database.fetch(query("support/default_policies", schema))
    }


def shown_policy(policy: RetentionPolicy) -> dict[str, Any]:
    """A policy for people and programs; ``max_age`` in seconds."""
    from waypost_worker.partition.encode import policy_fields

    return policy_fields(policy)


def shown_preview(preview: Preview) -> dict[str, Any]:
    """Return how many checkpoints would be removed, by reason."""
    return {
        "checkpoints": preview.checkpoints,
        "would_remove": len(preview.removed),
        "would_keep": preview.kept,
        "too_old": len(preview.reasons.by_age),
        "compressed": len(preview.reasons.by_compression),
        "above_maximum": len(preview.reasons.by_cap),
    }


def _retained(row: Any) -> Retained:
    columns = (row["numbers"], row["names"], row["recorded_at"], row["pinned"])
    entries = [
        Entry(number, name, 0, to_micros(recorded_at), number, pinned=pinned)
        for number, name, recorded_at, pinned in zip(*(column or () for column in columns), strict=True)
    ]
    session = Session.restore(row["session_id"], row["counter"], _policy(row["policy"]), entries, [])
    return Retained(session, row["partition"])


def _policy(raw: str | None) -> RetentionPolicy | None:
    return None if raw is None else RetentionPolicy(**orjson.loads(raw))
