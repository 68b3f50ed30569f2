"""Since when commands wait: the time of the next record of each partition that is behind."""

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from waypost_worker.kafka.client import ClusterClient
from waypost_worker.kafka.command_log import KafkaCommandLog
from waypost_worker.partition.ports import OwnerError

_FRESH_SECONDS: Final = 3.0
_ASK_SECONDS: Final = 2.0
#: A log may continue with transaction markers, which are not commands.
_LOOKED_THROUGH: Final = 10
_MOST_PARTITIONS: Final = 100


class WaitingCommands:
    """Reads the next command of partitions, each of them once, at most every few seconds."""

    def __init__(self, client: ClusterClient, topic: str) -> None:
        self._client = client
        self._topic = topic
        self._asked = -_FRESH_SECONDS
        self._known: dict[int, tuple[int, int | None]] = {}
        self._asking = asyncio.Lock()

    async def recorded(self, behind: Mapping[int, tuple[int, int]]) -> dict[int, int]:
        """Return when the next command of each partition was recorded, in milliseconds since 1970.

        Args:
            behind: By partition, the offset of the next record and the end of the log.

        A partition that can't be read in time, or has no command up to the end, is left out.
        """
        async with self._asking:
            if time.monotonic() - self._asked >= _FRESH_SECONDS:
                self._known = {one: place for one, place in self._known.items() if one in behind}
                new = [one for one, (offset, _) in behind.items() if self._offset(one) != offset]
                await asyncio.gather(*(self._read(one, *behind[one]) for one in new[:_MOST_PARTITIONS]))
                self._asked = time.monotonic()
        known = {one: self._known[one] for one, (offset, _) in behind.items() if self._offset(one) == offset}
        return {one: recorded for one, (_, recorded) in known.items() if recorded is not None}

    def _offset(self, partition: int) -> int | None:
        return self._known[partition][0] if partition in self._known else None

    async def _read(self, partition: int, offset: int, end: int) -> None:
        log = KafkaCommandLog(self._client, self._topic, partition)
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                start, _ = await log.bounds()
                records = (
                    await log.read(offset, min(end, offset + _LOOKED_THROUGH)) if offset >= start else []
                )
                self._known[partition] = (offset, records[0].timestamp if records else None)
        except (OwnerError, TimeoutError, OSError):
            return  # the page says by other means what is wrong with Kafka
        finally:
            await log.close()
