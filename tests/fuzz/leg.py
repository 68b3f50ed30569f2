"""One worker process under a limit on its memory, hostile inputs, and an ordinary command behind each of them.

The verdict rests on the topics, on /proc and on the probes, not on what the worker says of itself:

- every offset of the command topic has exactly one result;
- the command behind each input, of another session, is applied within five seconds, and a second more for each 2,000
  records of the input (longer where other programs take the processor);
- the worker's resident memory stays below 512 MB;
- no probe is silent for five seconds;
- no term of an owner ended.

At the end ``waypost verify`` must be clean, and ``waypost replay`` into an empty schema must be equal.
"""

import asyncio
import itertools
import re
import resource
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from tests.fuzz.commands import HOME, PARTITIONS, command_batch, create
from tests.fuzz.inputs import Input
from tests.integration.watched import FINDING_TESTS, Watched
from tests.oracle.books import follow
from tests.support.cli import CommandLine
from tests.support.database_state import state_hash
from tests.support.deployment import Deployment, deployment
from tests.support.raw_kafka import RawKafka
from tests.support.timeouts import PATIENCE

from waypost.subscriber.events import Event, read_event
from waypost.wire.topics import partition_of
from waypost_worker.devserver import Endpoints

MIB: Final = 1024 * 1024
#: What the worker may allocate. Counted is what it may write to, whether it has or not: heap, arenas and the stacks of
#: threads. Address space that is only reserved, 64 MB for each thread's arena, is not, as it takes no memory.
MOST_ALLOCATED: Final = 1024 * MIB
MOST_RESIDENT: Final = 512 * MIB
LONGEST: Final = 5.0  # seconds
# An input of many records is that many commands, each with a result of its own: so many per second are waited for.
_RATE: Final = 2_000
_RECOVERY_SECONDS: Final = 600.0
# Inputs that are sent before the answers to the first one are waited for.
ROUND: Final = 40
_ROUND_BYTES: Final = 256 * 1024
_CANARIES: Final = [
    name for name in (f"canary-{number}" for number in range(100)) if partition_of(name, PARTITIONS) == HOME
]
_ANSWERED: Final = re.compile(
    rb'"command":\{"id":(?:null|"(?:[^"\\]|\\.)*"),"partition":%d,"offset":(\d+)\}\}$' % HOME
)
_CREATED, _REJECTED, _ACQUIRED = (
    b"waypost.checkpoint.created",
    b"waypost.command.rejected",
    b"waypost.partition.acquired",
)


@dataclass
class Tally:
    """What was tried, by kind, and how it went."""

    tried: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    commands: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    slowest: dict[str, float] = field(default_factory=dict)
    resident: int = 0
    silent: float = 0.0
    not_ready: int = 0
    recovered: int = 0  # legs that were verified and replayed

    def slower(self, kind: str, seconds: float) -> None:
        self.slowest[kind] = max(self.slowest.get(kind, 0.0), seconds)


@dataclass(frozen=True)
class Sent:
    """An input in the log: its offsets and that of the command behind it, which was acknowledged ``at``."""

    input: Input
    accepted: bool
    first: int
    canary: int
    at: float


class BrokerEndedError(Exception):
    """The broker ended, so nothing more can be sent."""


class Probes(threading.Thread):
    """Asks both probes in turn, four times a second, and notes the longest time without an answer of one."""

    _PAUSE: Final = 0.25

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._stopped = threading.Event()
        self._answered = dict.fromkeys(("/livez", "/readyz"), time.monotonic())
        self._longest = 0.0
        self.dead = 0
        self.not_ready = 0

    def run(self) -> None:
        while not self._stopped.wait(self._PAUSE):
            for path in self._answered:
                self._ask(path)

    def longest(self) -> float:
        """Return the longest silence since the last call, the current one included."""
        now = time.monotonic()
        found = max(self._longest, *(now - at for at in self._answered.values()))
        self._longest = 0.0
        return found

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def _ask(self, path: str) -> None:
        try:
            with urllib.request.urlopen(self._address + path, timeout=PATIENCE):
                pass
        except urllib.error.HTTPError:
            self.dead += path == "/livez"
            self.not_ready += path == "/readyz"
        except OSError:
            return
        now = time.monotonic()
        self._longest = max(self._longest, now - self._answered[path])
        self._answered[path] = now


class Leg:
    """One deployment with one worker, for as long as nothing breaks."""

    def __init__(
        self,
        here: Deployment,
        directory: Path,
        tally: Tally,
        chance: Random,
        program: str | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self._broken = False
        self._patience = patience
        self._here = here
        self._directory = directory
        self._tally = tally
        self._chance = chance
        self._worker = Watched(here, directory / "worker.log", **({} if program is None else FINDING_TESTS))
        if program is not None:
            self._worker.command = (sys.executable, "-m", program, "worker")
        self._kafka: RawKafka | None = None
        self._numbers = itertools.count(1)
        self._end = 0  # of the command log
        self._answers: Counter[int] = Counter()
        self._rejected: set[int] = set()
        self._created: dict[int, float] = {}
        self._settled = 0  # up to here every offset was answered once
        self._again: list[int] = []  # answered once more after that
        self._news = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self._probes: Probes | None = None

    @property
    def pid(self) -> int:
        """The worker's process id."""
        assert self._worker.process is not None
        return self._worker.process.pid

    def is_broken(self) -> bool:
        """Return whether the partition or the worker stands still, so that nothing more can be sent."""
        return self._broken

    async def start(self) -> None:
        """Start the worker and wait until it has applied its first command."""
        await self._worker.start()
        resource.prlimit(self.pid, resource.RLIMIT_DATA, (MOST_ALLOCATED, MOST_ALLOCATED))
        self._following = asyncio.create_task(self._follow())
        address = await self._worker.address()
        await self._worker.answers("/readyz", lambda status, _: status == 200)
        self._probes = Probes(address)
        self._probes.start()
        problem = await self.judge([])
        assert problem is None, problem

    async def close(self) -> None:
        """End the worker, however it is."""
        if self._probes is not None:
            await asyncio.to_thread(self._probes.stop)
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        if self._kafka is not None:
            self._kafka.close()
        await self._worker.kill()

    # Inputs.

    async def judge(self, inputs: Sequence[Input]) -> str | None:
        """Send inputs, each with an ordinary command behind it. Return what is wrong, if anything."""
        terms = await self._terms_ended()
        self._forget_peaks()
        sent = await asyncio.to_thread(self._send, inputs)
        try:
            async with asyncio.timeout(self._patience + (self._end - self._settled) / _RATE):
                await self._until_answered(sent[-1].canary)
        except TimeoutError:
            self._broken = True
            return f"offset {self._first_unanswered()} has no answer"
        if self._worker.process is None or self._worker.process.returncode is not None:
            self._broken = True
            return f"the worker ended with {self._worker.process and self._worker.process.returncode}"
        problem = self._count(sent)
        if problem is None and terms != await self._terms_ended():
            return "a term of the owner ended"
        return problem

    def _send(self, inputs: Sequence[Input]) -> list[Sent]:
        sent = []
        for one in inputs or [Input("nothing", "nothing", ())]:
            first, accepted = self._end, False
            for raw in one.batches:
                accepted |= self._produce(raw)
            session = self._chance.choice(_CANARIES)
            canary = command_batch(Random(0), [create(session, f"canary-{next(self._numbers)}")])
            assert self._produce(canary), "the broker refuses an ordinary command"
            sent.append(Sent(one, accepted, first, self._end - 1, time.monotonic()))
        return sent

    def _produce(self, raw: bytes) -> bool:
        if self._kafka is None:
            try:
                self._kafka = RawKafka(self._here.endpoints.bootstrap_servers)
            except ConnectionRefusedError as refused:
                raise BrokerEndedError from refused
        try:
            error, offset = self._kafka.produce(self._here.topics.commands, HOME, raw)
        except ConnectionError:  # closed by a broker that can't read the request
            self._kafka.close()
            self._kafka = None
            return False
        if error or offset < 0:
            return False
        # The offsets that a batch takes are known from its header; the next batch shows whether that is so.
        assert offset == self._end, f"the batch landed at {offset} instead of {self._end}"
        self._end = offset + 1 + max(0, int.from_bytes(raw[23:27], "big", signed=True))
        return True

    def _count(self, sent: Sequence[Sent]) -> str | None:
        problems = []
        for one in sent:
            kind, offsets = one.input.kind, range(one.first, one.canary)
            self._tally.tried[kind] += 1
            self._tally.accepted[kind] += one.accepted
            self._tally.commands[kind] += len(offsets)
            self._tally.rejected[kind] += sum(offset in self._rejected for offset in offsets)
            problems += [
                f"offset {offset} has {self._answers[offset]} answers"
                for offset in (*offsets, one.canary)
                if self._answers[offset] != 1
            ]
            if one.canary not in self._created:
                problems.append("the ordinary command was rejected")
                continue
            seconds = self._created[one.canary] - one.at
            self._tally.slower(kind, seconds)
            allowed = LONGEST + len(offsets) / _RATE
            if seconds > allowed and seconds > allowed * _share_of_others():
                problems.append(f"the ordinary command took {seconds:.1f} s")
        problems += [f"offset {offset} was answered again" for offset in self._again]
        self._settle(sent[-1].canary)
        return problems[0] if problems else self._peaks()

    def _peaks(self) -> str | None:
        resident = self.resident()
        self._tally.resident = max(self._tally.resident, resident)
        if self._probes is not None:
            silent = self._probes.longest()
            self._tally.silent = max(self._tally.silent, silent)
            self._tally.not_ready = self._probes.not_ready
            if silent > LONGEST:
                return f"a probe was silent for {silent:.1f} s"
            if self._probes.dead:
                self._probes.dead = 0
                return "/livez reports a dead worker"
        if resident > MOST_RESIDENT:
            return f"the worker took {resident // MIB} MiB"
        return None

    def resident(self) -> int:
        """Return the most memory that the worker had resident since the last round began."""
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        return int(found[1]) * 1024 if found else 0

    def _forget_peaks(self) -> None:
        with suppress(OSError):
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        if self._probes is not None:
            self._probes.longest()

    async def loop_delay(self) -> float:
        """Return the longest recent delay of the worker's event loop in seconds, as it says itself."""
        return (await self._worker.metrics())[("waypost_loop_delay_seconds",)]

    async def _terms_ended(self) -> float:
        try:
            metrics = await self._worker.metrics()
        except (OSError, AssertionError):
            return -1.0
        return sum(value for name, value in metrics.items() if name[0] == "waypost_terms_ended_total")

    # Results.

    async def _follow(self) -> None:
        async for record in follow(self._here.endpoints, self._here.topics.results):
            kind = dict(record.headers)["ce_type"]
            if record.partition != HOME or kind == _ACQUIRED:
                continue
            found = _ANSWERED.search(record.value, max(0, len(record.value) - 1000))
            assert found is not None, record.value[-1000:]
            offset = int(found[1])
            if offset < self._settled:
                self._again.append(offset)
            self._answers[offset] += 1
            if kind == _REJECTED:
                self._rejected.add(offset)
            elif kind == _CREATED:
                self._created[offset] = time.monotonic()
            self._news.set()

    async def _until_answered(self, last: int) -> None:
        process = self._worker.process
        assert process is not None
        while last not in self._answers and process.returncode is None:
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await self._news.wait()

    def _first_unanswered(self) -> int:
        return next(offset for offset in itertools.count(self._settled) if not self._answers[offset])

    def _settle(self, last: int) -> None:
        self._settled = last + 1
        self._answers.clear()
        self._rejected.clear()
        self._created.clear()

    async def results(self) -> list[Event]:
        """Return all results so far of the partition that inputs go to, as subscribers see them."""
        return [read_event(record) for record in (await self._here.results())[HOME]]

    # The end.

    async def recovered(self) -> str | None:
        """Drain the worker, verify, and replay into an empty schema. Return what is wrong, if anything."""
        code = await self._worker.end(signal.SIGTERM)
        if code:
            return f"the worker drained with exit code {code}"
        line = CommandLine(
            self._directory,
            {
                "WAYPOST_BOOTSTRAP_SERVERS": self._here.endpoints.bootstrap_servers,
                "WAYPOST_POSTGRES_DSN": self._here.dsn,
                "WAYPOST_TOPIC_PREFIX": self._here.topics.prefix,
            },
        )
        for arguments in (("verify",), ("replay", "--schema", "replayed")):
            started = line.start(*arguments)
            resource.prlimit(started.process.pid, resource.RLIMIT_DATA, (MOST_ALLOCATED, MOST_ALLOCATED))
            try:
                outcome = await asyncio.to_thread(started.wait, _RECOVERY_SECONDS)
            finally:
                started.end()
            if outcome.code:
                return f"waypost {' '.join(arguments)}: exit code {outcome.code}, {outcome.err[-500:]}"
        live, replayed = [await state_hash(self._here.dsn, one) for one in ("waypost", "replayed")]
        if live != replayed:
            return f"replayed is not live: {live} and {replayed}"
        self._tally.recovered += 1
        return None


def _share_of_others() -> float:
    """Return how many times longer work takes now than on a machine of its own: other programs may need it, too."""
    wall, own = time.perf_counter(), time.process_time()
    while time.process_time() - own < 0.2:
        pass
    return max(1.0, (time.perf_counter() - wall) / (time.process_time() - own))


@asynccontextmanager
async def leg(
    endpoints: Endpoints,
    dsn: str,
    prefix: str,
    directory: Path,
    tally: Tally,
    seed: int,
    program: str | None = None,
    patience: float = PATIENCE,
) -> AsyncIterator[Leg]:
    """Create topics, start a worker, and end it. ``program`` replaces the ordinary one.

    A partition that does not answer for ``patience`` seconds stands still.
    """
    async with deployment(endpoints, dsn, prefix, partitions=PARTITIONS) as here:
        made = Leg(here, directory, tally, Random(seed), program, patience)
        try:
            await made.start()
            yield made
        finally:
            await made.close()


def rounds(inputs: Iterable[Input]) -> Iterable[list[Input]]:
    """Group inputs that can be in flight together; a heavy one stands alone."""
    together: list[Input] = []
    for one in inputs:
        size = sum(len(raw) for other in together for raw in other.batches)
        if together and (one.heavy or len(together) >= ROUND or size > _ROUND_BYTES):
            yield together
            together = []
        if one.heavy:
            yield [one]
        else:
            together.append(one)
    if together:
        yield together


async def culprit(leg: Leg, inputs: Sequence[Input]) -> tuple[Input, str] | None:
    """Send the inputs of a round that failed one by one. Return the one that fails again, and how.

    What is only slow must be so three times: other programs may have taken the machine.
    """
    for one in inputs:
        problems = []
        for _ in range(3):
            problem = await leg.judge([one])
            if problem is None:
                break
            problems.append(problem)
            if leg.is_broken():
                return one, problem
        if len(problems) == 3:
            return one, problems[-1]
    return None
