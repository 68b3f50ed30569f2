"""What Kafka acknowledged to publishers, held against the command topic: an acknowledged command is in the log.

Knows records and offsets, nothing of what commands mean.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Headers = Iterable[tuple[str, bytes | None]]


def fingerprint(key: bytes | None, value: bytes | None, headers: Headers) -> bytes:
    """A hash of a whole record; no two records of a run that differ share one."""
    digest = hashlib.sha256()
    parts = [key, value, *(part for name, text in headers for part in (name.encode(), text))]
    for part in parts:
        # The length, or that there is none, keeps parts apart.
        digest.update(b"-" if part is None else b"%d:" % len(part) + part)
    return digest.digest()


@dataclass
class Ledger:
    """Acknowledged commands: ``entries[partition][offset]`` is the record's fingerprint."""

    entries: dict[int, dict[int, bytes]] = field(default_factory=dict)
    refused: int = 0

    @property
    def count(self) -> int:
        """How many commands were acknowledged."""
        return sum(map(len, self.entries.values()))

    def note(self, partition: int, offset: int, print_: bytes) -> None:
        """An acknowledgement came."""
        self.entries.setdefault(partition, {})[offset] = print_

    def missing(self, commands: Mapping[int, Sequence[Any]]) -> list[str]:
        """The acknowledged commands that the log does not hold where Kafka said they are."""
        problems = []
        for partition, entries in sorted(self.entries.items()):
            held = {
                record.offset: fingerprint(record.key, record.value, record.headers)
                for record in commands.get(partition, ())
            }
            problems += [
                f"partition {partition}: the acknowledged command {offset} is "
                + ("not in the log" if offset not in held else "another one in the log")
                for offset, print_ in sorted(entries.items())
                if held.get(offset) != print_
            ]
        return problems
