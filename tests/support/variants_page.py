"""Make the table of docs/measured/batch-variants.md: `python -m tests.support.variants_page` prints it."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

from aiokafka.record.memory_records import MemoryRecords
from tests.support.batch_variants import variants
from tests.support.hostile_batches import NONE
from tests.support.variant import CODECS, Variant

from waypost.kafka.record_batches import Records, decode_batches

_ORDER: Final = ("none", "any compression", "gzip", "snappy", "lz4", "zstd")


def table() -> str:
    """Return the accepted variants as a table and the rejected ones as a list."""
    found = list(variants())
    rows = ["| codec | record batch | aiokafka 0.14.0 | Waypost's answer |", "|---|---|---|---|"]
    for codec, name, group in _rows(variant for variant in found if variant.accepted):
        said = {aiokafka_says(variant) for variant in group}
        answers = {str(variant.answer) for variant in group}
        rows.append(f"| {codec} | {name} | {', '.join(sorted(said))} | {', '.join(sorted(answers))} |")
    refused = _rows(variant for variant in found if not variant.accepted)
    lists = [
        f"- **{codec}**: {'; '.join(name for _, name, _ in names)}."
        for codec, names in groupby(refused, key=lambda row: row[0])
    ]
    return "\n".join(rows) + "\n\nThe broker rejects:\n\n" + "\n".join(lists) + "\n"


def _rows(found: Iterable[Variant]) -> Iterator[tuple[str, str, list[Variant]]]:
    """Yield codec, name and variants of each row. Variants of all four compressions share a row."""
    by_name: dict[str, list[Variant]] = {}
    for variant in found:
        by_name.setdefault(variant.name, []).append(variant)
    shared = {
        name: [variant for variant in group if variant.codec != NONE]
        for name, group in by_name.items()
        if {variant.codec for variant in group} >= {1, 2, 3, 4}
    }
    order: dict[str, list[tuple[str, str, list[Variant]]]] = {}
    for name, group in by_name.items():
        if name in shared:
            order.setdefault("any compression", []).append(("any compression", name, shared[name]))
        for variant in group:
            if name not in shared or variant.codec == NONE:
                codec = CODECS[variant.codec] if variant.codec < len(CODECS) else str(variant.codec)
                order.setdefault(codec, []).append((codec, name, [variant]))
    for codec in sorted(order, key=lambda codec: (*_ORDER, codec).index(codec)):
        yield from order[codec]


def aiokafka_says(variant: Variant) -> str:
    """Return how aiokafka reads a batch, compared with our reader."""
    if variant.bomb:
        return "unpacks all of it"
    try:
        batch = MemoryRecords(variant.raw).next_batch()
        assert batch is not None
        assert batch.validate_crc()
        theirs = [(one.offset, one.key, one.value, list(one.headers)) for one in batch]
    except Exception as error:
        kind = type(error)
        return f"raises {'struct.' if kind.__module__ == 'struct' else ''}{kind.__name__}"
    if [row[0] for row in theirs] != list(range(len(theirs))):
        return "offsets " + ", ".join(str(row[0]) for row in theirs)
    ours = [
        (one.offset, one.key, one.value, list(one.headers))
        for piece in decode_batches(variant.raw, 0)
        if isinstance(piece, Records)
        for one in piece.records
    ]
    return "records" if theirs[: len(ours)] == ours else "other records"


if __name__ == "__main__":
    print(table(), end="")
