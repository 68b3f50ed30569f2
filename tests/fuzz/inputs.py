"""What a run sends: inputs from a seed and a number, each of one kind.

An input is the same in every process, so a seed and a number are enough to send it again. Imports nothing of the code
under test but the list of command types.
"""

import gzip
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from tests.fuzz import batches, bodies, envelopes, payloads

from waypost.wire.event_types import COMMAND_TYPES

FOUND: Final = Path(__file__).with_name("found")
# An input that takes longer than others to build or to answer is sent alone.
_LIGHT_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class Input:
    """Record batches, each sent by a Produce request of its own, and what they are."""

    kind: str
    name: str
    batches: tuple[bytes, ...]
    heavy: bool = False


_BATCHES: Final[dict[str, Callable[[Random], tuple[str, bytes]]]] = {
    "batch: header": batches.headers,
    "batch: records": batches.records,
    "batch: gzip": payloads.gzip_payload,
    "batch: snappy": payloads.snappy_payload,
    "batch: lz4": payloads.lz4_payload,
    "batch: zstd": payloads.zstd_payload,
    "batch: changed bytes": batches.changed_bytes,
    "batch: tiny records": batches.tiny_records,
    "batch: bomb": batches.bomb,
    "envelope: headers": envelopes.headers,
    "envelope: key": envelopes.keys,
    "envelope: structured": envelopes.structured,
    "body: large": bodies.large,
}
# These cost a second each; so that they don't take the whole run, they are rare.
RARE: Final = {"batch: tiny records": 0.05, "batch: bomb": 0.1, "body: large": 0.1}
KINDS: Final = (*_BATCHES, *(f"body: {kind.removeprefix('waypost.')}" for kind in COMMAND_TYPES))


def input_of(seed: int, number: int, kind: str | None = None) -> Input:
    """Return the input of this number; ``kind`` chooses among the kinds instead of the seed."""
    chance = Random(f"{seed}:{number}:{kind or ''}")
    if kind is None:
        kind = chance.choices(KINDS, [RARE.get(one, 1.0) for one in KINDS])[0]
    if kind in _BATCHES:
        name, raw = _BATCHES[kind](chance)
        while batches.ends_a_broker(raw):
            name, raw = _BATCHES[kind](chance)
    else:
        name, raw = bodies.bodies(chance, f"waypost.{kind.removeprefix('body: ')}")
    return Input(kind, name, (raw,), kind in RARE or len(raw) > _LIGHT_BYTES)


# Failing inputs as files.


def file_name(one: Input, why: str) -> str:
    """Return a name that says what an input is and what it did."""
    return re.sub("[^a-z0-9]+", "-", f"{one.kind} {one.name} {why}".lower()).strip("-")[:100]


def save(one: Input, why: str, directory: Path = FOUND) -> list[Path]:
    """Write the batches of an input, one file each; bombs and long bodies shrink to a fraction."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for number, raw in enumerate(one.batches):
        part = f"-{number + 1}-of-{len(one.batches)}" if len(one.batches) > 1 else ""
        path = directory / f"{file_name(one, why)}{part}.batch.gz"
        path.write_bytes(gzip.compress(raw, 9, mtime=0))
        written.append(path)
    return written


def saved(directory: Path = FOUND) -> list[Input]:
    """Return the inputs that were saved, in the order of their names."""
    return [
        Input("found", path.name.removesuffix(".batch.gz"), (gzip.decompress(path.read_bytes()),), heavy=True)
        for path in sorted(directory.glob("*.batch.gz"))
    ]
