"""The simulated logs and store keep the promises that the real ones keep: the same suite, on the same tests.

What the simulation finds is worth as much as this: a simulator that is kinder than Kafka or Postgres would hide
flaws.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

import pytest
import tests.conformance.test_command_log as command_log_suite
import tests.conformance.test_results_log as results_log_suite
import tests.conformance.test_store as store_suite
import tests.conformance.test_store_batches as store_batches_suite
import tests.conformance.test_store_erasure as store_erasure_suite
import tests.conformance.test_store_groups as store_groups_suite
import tests.conformance.test_store_lives as store_lives_suite
import tests.conformance.test_store_takeovers as store_takeovers_suite
from tests.conformance.worlds import PARTITION, PARTITIONS
from tests.simulation.broker import CommandPartition, Coordinator, ResultsPartition
from tests.simulation.clients import SimulatedCommandLog, SimulatedResultsLog, Topic
from tests.simulation.database import Database, SimulatedStore, request_skip
from tests.simulation.group_commit import Groups
from tests.simulation.network import Server

from waypost_worker.partition.ports import ResultRecord


class _Transaction:
    def __init__(self, log: CommandPartition, values: Sequence[bytes]) -> None:
        self._log = log
        self._id = log.end
        log.open(self._id)
        self._offsets = [_append(log, value) for value in values]

    async def commit(self) -> None:
        self._log.commit(self._id)

    async def abort(self) -> None:
        self._log.abort(self._id, self._offsets)


class SimulatedWorld:
    """Partitions of commands and one of results, on the loop of the test instead of virtual time."""

    def __init__(self) -> None:
        loop: Any = asyncio.get_running_loop()
        self._server = _near(Server("kafka", loop, Random(1), timeout=5))
        self._topic = Topic([CommandPartition() for _ in range(PARTITIONS)])
        self._commands = self._topic.partitions[PARTITION]  # of most tests
        self._results = ResultsPartition(expiry=3600, time=time.monotonic)
        self._coordinator = Coordinator(expiry=3600, epochs=32_767, time=time.monotonic)

    def commands(self, partition: int = PARTITION) -> SimulatedCommandLog:
        return SimulatedCommandLog(self._server, self._topic, partition)

    def results(self) -> SimulatedResultsLog:
        return SimulatedResultsLog(self._server, self._results, self._coordinator, "sim")

    async def publish(self, values: Sequence[bytes | None], partition: int = PARTITION) -> list[int]:
        return [_append(self._topic.partitions[partition], value) for value in values]

    async def begin(self, values: Sequence[bytes]) -> _Transaction:
        return _Transaction(self._commands, values)

    async def trim_commands(self, before: int) -> None:
        self._commands.trim(before)

    async def trim_results(self, before: int) -> None:
        self._results.trim(before)

    async def recreate_commands(self) -> None:
        self._commands.recreate()

    async def leave_gap_in_results(self) -> None:
        self._results.write([ResultRecord(b"key", b"foreign", [])])
        self._results.gap()


class SimulatedStores:
    """One database, on the loop of the test instead of virtual time."""

    def __init__(self) -> None:
        loop: Any = asyncio.get_running_loop()
        self._database = Database(_near(Server("postgres", loop, Random(1), timeout=5)))

    async def open(self, partition: int = 0) -> SimulatedStore:
        return SimulatedStore(self._database, partition)

    async def open_together(self, partitions: Sequence[int]) -> list[SimulatedStore]:
        groups = Groups.of(self._database)
        return [SimulatedStore(self._database, partition, groups) for partition in partitions]

    async def request_skip(self, partition: int, offset: int) -> bool:
        return request_skip(self._database, partition, offset)

    async def rejected(self, partition: int) -> list[int]:
        return sorted(self._database.tables[partition].rejected)


def _near(server: Server) -> Server:
    """Make the way to a server short: on this loop, the time that it takes really passes."""
    server.weather.quick = 0.0001
    return server


def _append(log: CommandPartition, value: bytes | None) -> int:
    return log.append(time.time_ns() // 1_000_000, b"key", value, [("name", b"value")])


@pytest.fixture
async def world() -> SimulatedWorld:
    return SimulatedWorld()


@pytest.fixture
async def stores() -> SimulatedStores:
    return SimulatedStores()


def _suite() -> Iterator[tuple[str, Any]]:
    for module in (
        command_log_suite,
        results_log_suite,
        store_suite,
        store_batches_suite,
        store_erasure_suite,
        store_groups_suite,
        store_lives_suite,
        store_takeovers_suite,
    ):
        for name, test in vars(module).items():
            if name.startswith("test_"):
                yield name, test


globals().update(_suite())
