"""The files of one format: ``commands.jsonl`` and ``results.jsonl`` (records, bytes as Latin-1 text),
``database.sql`` (a dump of the schema ``waypost``), ``state.json`` (hashes of the tables) and ``snapshot/``.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class GoldenRecord:
    """A record as it was in the topic; ``timestamp`` in milliseconds."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def formats() -> list[str]:
    """The released formats, oldest first."""
    return sorted(path.name for path in HERE.iterdir() if (path / "state.json").exists())


def read_records(path: Path) -> Iterator[GoldenRecord]:
    """All records of a file, in the order of their partitions and offsets."""
    for line in path.read_text("utf-8").splitlines():
        partition, offset, timestamp, key, value, headers = json.loads(line)
        pairs = [(name, raw.encode("latin-1")) for name, raw in headers]
        yield GoldenRecord(partition, offset, timestamp, _bytes(key), _bytes(value), pairs)


def write_records(path: Path, records: Iterable[Any]) -> None:
    """Write records as aiokafka gives them."""
    with path.open("w", encoding="utf-8") as out:
        for one in records:
            headers = [[name, raw.decode("latin-1")] for name, raw in one.headers]
            row = [one.partition, one.offset, one.timestamp, _text(one.key), _text(one.value), headers]
            out.write(json.dumps(row) + "\n")


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode("latin-1")


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("latin-1")
