"""A subscriber that watches the results topic live, as any consumer with read_uncommitted would.

It uses librdkafka, so that it shares no client code with the worker. What it saw is held against the topic.
"""

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson
from confluent_kafka import Consumer, TopicPartition

_ACQUIRED: Final = b"waypost.partition.acquired"
_POLL_SECONDS: Final = 0.1


class Seen(NamedTuple):
    """A result as it arrived: its offset, event id and arrival (monotonic seconds)."""

    offset: int
    event_id: str
    arrived: float


class LiveSubscriber:
    """Watches all partitions from their beginning, in a thread of its own, until :meth:`close`."""

    def __init__(self, bootstrap_servers: str, topic: str, partitions: int) -> None:
        self.seen: dict[int, list[Seen]] = {partition: [] for partition in range(partitions)}
        self.ids: Counter[str] = Counter()
        # By partition: the highest command offset with a result, the next offset of the topic, fence records.
        self.answered: dict[int, int] = dict.fromkeys(range(partitions), -1)
        self.position: dict[int, int] = dict.fromkeys(range(partitions), 0)
        self.terms: Counter[int] = Counter()
        self._topic = topic
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": "oracle",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                # The default of Java's and aiokafka's consumers; librdkafka's own is the other one.
                "isolation.level": "read_uncommitted",
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            },
            logger=None,
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="live-subscriber", daemon=True)
        self._thread.start()

    @property
    def count(self) -> int:
        """How many results arrived, repeated ones included."""
        return self.ids.total()

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        self._consumer.assign([TopicPartition(self._topic, partition, 0) for partition in self.seen])
        while not self._stop.is_set():
            for message in self._consumer.consume(500, _POLL_SECONDS):
                if message.error() is None:
                    self._take(message)
        self._consumer.close()

    def _take(self, message: Any) -> None:
        partition, headers = message.partition(), dict(message.headers())
        if headers["ce_type"] == _ACQUIRED:
            self.terms[partition] += 1
        else:
            event_id = headers["ce_id"].decode()
            self.ids[event_id] += 1
            self.seen[partition].append(Seen(message.offset(), event_id, time.monotonic()))
            offset = orjson.loads(message.value())["command"]["offset"]
            self.answered[partition] = max(self.answered[partition], offset)
        self.position[partition] = message.offset() + 1


def differences_seen(seen: dict[int, list[Seen]], results: Mapping[int, Sequence[Any]]) -> list[str]:
    """Where what was seen is not, in order and once each, what the topic holds."""
    problems = []
    for partition, records in sorted(results.items()):
        held = [
            (record.offset, headers["ce_id"].decode())
            for record in records
            if (headers := dict(record.headers)).get("ce_type") != _ACQUIRED
        ]
        came = [(one.offset, one.event_id) for one in seen.get(partition, [])]
        if held != came:
            at = next((i for i, (a, b) in enumerate(zip(held, came, strict=False)) if a != b), None)
            where = f"; first at {at}: {held[at]} in the topic, {came[at]} seen" if at is not None else ""
            problems.append(
                f"partition {partition}: {len(held)} results in the topic, {len(came)} seen live{where}"
            )
    return problems
