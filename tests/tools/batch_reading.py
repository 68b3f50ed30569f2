"""Compare reading record batches with aiokafka alone: `python -m tests.tools.batch_reading` prints the table.

The baseline checks the checksums with google-crc32c and builds all records, as the worker did before it decoded batches
itself. Both read the same bytes in turns in one process, and each figure is the least CPU time of all rounds.
"""

import gc
import json
import random
import time
from typing import Any

import google_crc32c
from aiokafka.record.memory_records import MemoryRecords
from tests.support.hostile_batches import batch, header, moved, record
from tests.support.variant import CODECS, packed

from waypost.kafka.record_batches import Records, decode_batches

ROUNDS = 60
_CHECKED_FROM = 21


def commands(count: int) -> bytes:
    """Return records like creates of about 1 KB."""
    draw = random.Random(1)
    words = [draw.randbytes(4).hex() for _ in range(2000)]
    headers = [
        header(b"ce_id", b"0199-1234-5678-abcd-000000000001"),
        header(b"ce_source", b"/agents/test"),
        header(b"ce_type", b"waypost.checkpoint.create"),
        header(b"ce_time", b"2026-11-24T08:24:59.123456Z"),
        header(b"ce_specversion", b"1.0"),
        header(b"content-type", b"application/json"),
    ]
    return b"".join(
        record(
            number,
            b"session-%d" % (number % 20),
            json.dumps({"name": "step", "data": {"text": " ".join(draw.choices(words, k=80))}}).encode(),
            headers,
        )
        for number in range(count)
    )


def read_with_aiokafka(raw: bytes) -> list[Any]:
    """Return all records, decoded by aiokafka alone."""
    log, found, at = MemoryRecords(raw), [], 0
    while log.has_next():
        each: Any = log.next_batch()
        end = at + 12 + int.from_bytes(raw[at + 8 : at + 12], "big")
        assert google_crc32c.value(raw[at + _CHECKED_FROM : end]) == each.crc
        found += list(each)
        at = end
    return found


def read_with_pieces(raw: bytes) -> list[Any]:
    """Return all records, from the pieces of our reader."""
    found: list[Any] = []
    for piece in decode_batches(raw, 0, aborted=()):
        if isinstance(piece, Records):
            found += piece.records
    return found


def main() -> None:
    """Print a row for each codec and number of records in a batch."""
    # As in a worker, whose collector would otherwise take a third of this.
    gc.freeze()
    gc.set_threshold(500_000, 10, 20)
    print("| records per batch | codec | aiokafka, µs per record | Waypost, µs per record | ratio |")
    print("|---|---|---|---|---|")
    for count in (1, 16, 250, 900):
        data = commands(count)
        for codec, name in enumerate(CODECS):
            one = batch(packed(codec, data), count, codec)
            batches = max(1, 1000 // count)
            raw = b"".join(moved(one, number * count) for number in range(batches))
            least = [1e9, 1e9]
            for _ in range(ROUNDS):
                for which, read in enumerate((read_with_aiokafka, read_with_pieces)):
                    begin = time.process_time()
                    found = read(raw)
                    least[which] = min(least[which], time.process_time() - begin)
                    assert len(found) == count * batches
            before, after = (1e6 * seconds / count / batches for seconds in least)
            print(f"| {count} | {name} | {before:.2f} | {after:.2f} | {after / before:.2f} |", flush=True)


if __name__ == "__main__":
    main()
