"""What one fetch gives is bounded, wherever in a record the bytes are."""

from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from waypost.kafka import bounded_fetch
from waypost.kafka.bounded_fetch import Fetched, decode_fetched

SIZE = 1000


def batch(offset: int, **record: Any) -> bytes:
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1,
        batch_size=1 << 20,
    )  # fmt: skip
    builder.append(0, timestamp=1, **{"key": None, "value": None, "headers": [], **record})
    raw = builder.build()
    raw[:8] = offset.to_bytes(8, "big")
    return bytes(raw)


@pytest.mark.parametrize(
    "record",
    [
        {"key": bytes(SIZE)},
        {"value": bytes(SIZE)},
        {"headers": [("h", bytes(SIZE))]},
        {"headers": [("h" * SIZE, b"")]},
        {"headers": [("", None)] * 16},
    ],
)
async def test_decoding_ends_behind_the_record_that_reaches_the_limit(
    record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_fetch, "_MOST_BYTES", 2 * SIZE)
    raw = b"".join(batch(offset, **record) for offset in range(10))
    decoded = await decode_fetched(Fetched(TopicPartition("results", 0), 0, raw, (), -1), 0, committed=False)
    assert [one.offset for one in decoded.records] == [0, 1]
    assert decoded.behind == 2
    assert decoded.size >= 2 * SIZE
