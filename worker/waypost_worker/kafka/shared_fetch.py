"""The fetches of all partitions of a process: one request per broker for all of them.

Sends what ``fetch_rounds`` plans, over the shared connections, and distributes the answers. After an answer or a broken
connection that may mean a new leader, metadata is requested once for all.
"""

import asyncio
from typing import Any, Final, NamedTuple

from aiokafka.errors import IncompatibleBrokerVersion, NodeNotReadyError, for_code
from aiokafka.protocol.fetch import FetchRequest

from waypost_worker.kafka.client import ClusterClient, Lane
from waypost_worker.kafka.connection import PASSING
from waypost_worker.kafka.fetch_by_id import Asked, FetchAnswer, FetchByIdRequest, Fetched
from waypost_worker.kafka.fetch_rounds import GATHER, Feed, FetchPlanner, FetchRound, Outcome
from waypost_worker.partition.ports import OwnerError

_LONG_WAIT_MS: Final = 500
_SHORT_WAIT_MS: Final = 20
_NEW_LEADER_SECONDS: Final = 0.1
_LEAST_BYTES: Final = 1
_AS_MANY_TOPICS_AS: Final = 11  # the version of a fetch whose answers name another replica


class FetchKind(NamedTuple):
    """The purpose of fetches. ``is_live`` says that records are waited for, rather than read because they exist."""

    is_live: bool
    isolation: int


def shared_fetch(client: ClusterClient, kind: FetchKind) -> "SharedFetch":
    """Return what all readers of a client fetch with."""
    return client.shared(_Fetches).of(kind)


class _Fetches:
    """A client's resources for fetching, by purpose."""

    def __init__(self, client: ClusterClient) -> None:
        self._client = client
        self._made: dict[FetchKind, SharedFetch] = {}

    def of(self, kind: FetchKind) -> "SharedFetch":
        if kind not in self._made:
            self._made[kind] = SharedFetch(self._client, kind)
        return self._made[kind]


class SharedFetch:
    """Fetches for all feeds that joined, as long as somebody waits for one of them.

    The requests under way belong to no feed, so they end by themselves: after half a second, or with the connections.
    """

    def __init__(self, client: ClusterClient, kind: FetchKind) -> None:
        self._client = client
        self._kind = kind
        self._planner = FetchPlanner(gather=GATHER if kind.is_live else 0.0, is_long=kind.is_live)
        self._tasks: set[asyncio.Task[None]] = set()
        self._resting: set[Feed] = set()
        self._recovery: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_planning_soon = False

    async def wait(self, feed: Feed, seconds: float) -> None:
        """Wait until the feed has something to take, or to raise, for ``seconds`` at most. It joins with that."""
        self._planner.add(feed)
        if feed.is_ready:
            return
        loop = asyncio.get_running_loop()
        woken = loop.create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        feed.waiting, feed.wake = True, wake
        now = loop.time()
        due = self._planner.returned(feed, now)
        if due is not None and due <= now:
            self._plan_soon()
        elif due is not None and due > now and self._timer is None:
            self._timer = loop.call_at(due, self._plan)
        try:
            await asyncio.wait({woken}, timeout=seconds)
        finally:
            if feed.wake is wake:  # a call that was canceled may end after the next one began
                feed.waiting, feed.wake = False, None

    def look_ahead(self, feed: Feed) -> None:
        """Fetch what is known to come next while an owner is busy with what it took."""
        if feed.is_behind and feed.request is None:
            self._plan_soon()

    def leave(self, feed: Feed) -> None:
        """Drop a feed and all that is under way for it."""
        self._planner.remove(feed)
        self._resting.discard(feed)
        feed.is_resting = False

    def disturb(self, feed: Feed) -> None:
        """Look for the leader of a feed before anything is asked for it again."""
        feed.disturb()
        feed.is_resting = True
        self._resting.add(feed)
        if self._recovery is None:
            self._recovery = asyncio.create_task(self._recover(), name="fetch-recovery")

    def _plan_soon(self) -> None:
        if not self._is_planning_soon:  # owners that finish together are planned for together
            self._is_planning_soon = True
            asyncio.get_running_loop().call_soon(self._plan)

    def _plan(self) -> None:
        self._is_planning_soon = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        rounds, homeless, again_at = self._planner.plan(loop.time(), self._client.known_leader_of)
        for one in rounds:
            task = asyncio.create_task(self._run(one), name=f"fetch-{one.node}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        for feed in homeless:
            self.disturb(feed)
        if again_at is not None:
            self._timer = loop.call_at(again_at, self._plan)

    async def _run(self, one: FetchRound) -> None:
        for part in one.parts:
            if part.feed.seen_start != self._client.starts:
                part.feed.disturbances += part.feed.seen_start > 0
                part.feed.seen_start = self._client.starts
        fed: list[Feed] = []
        try:
            answer = await self._ask(one)
        except Exception as error:
            self._planner.answered(one, (), self._now())
            self._fail(one, error)
        else:
            for part in one.live:
                feed = part.feed
                fetched = answer.get((feed.partition.topic, feed.partition.partition))
                outcome = Outcome.NOTHING if fetched is None else feed.deliver(fetched)
                if outcome is Outcome.FED:
                    fed.append(feed)
                elif outcome is Outcome.DISTURBED:
                    self.disturb(feed)
            self._planner.answered(one, fed, self._now())
        self._plan()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _fail(self, one: FetchRound, error: Exception) -> None:
        """Let a failure of a request concern everybody in it, as far as it does."""
        too_old = one.by_id and isinstance(error, NotImplementedError | IncompatibleBrokerVersion)
        # A broker that can't be reached may no longer lead anything.
        passes = getattr(error, "invalid_metadata", False) or isinstance(error, NodeNotReadyError)
        for part in one.live:
            if too_old:
                part.feed.is_named = True
            elif part.was_waiting and not passes:
                part.feed.fail(error)
            else:
                # If nobody waited, this may say nothing about Kafka: a process that folds 300,000 records lets the
                # event loop run too rarely for 8 MB to arrive in time.
                self.disturb(part.feed)

    async def _ask(self, one: FetchRound) -> dict[tuple[str, int], Fetched]:
        lane = Lane.READ
        if self._kind.is_live:
            lane = Lane.FETCH_BESIDE if one.is_beside else Lane.FETCH
        wait_ms = _LONG_WAIT_MS if one.is_long else _SHORT_WAIT_MS
        if not one.by_id:
            return _by_name(await self._client.send(one.node, self._named(one, wait_ms), lane))
        asked = [
            Asked(part.feed.topic_id, part.feed.partition.partition, *part[2:5])
            for part in one.parts
            if part.feed.topic_id is not None
        ]
        request = FetchByIdRequest(
            asked, wait_ms=wait_ms, most_bytes=one.most_bytes, isolation_level=self._kind.isolation
        )
        answer: FetchAnswer = (await self._client.send(one.node, request, lane)).answer
        if answer.error_code:
            raise for_code(answer.error_code)(f"fetching from broker {one.node}")
        names = {part.feed.topic_id: part.feed.partition.topic for part in one.parts}
        return {
            (names[topic_id], number): fetched
            for (topic_id, number), fetched in answer.partitions.items()
            if topic_id in names
        }

    def _named(self, one: FetchRound, wait_ms: int) -> Any:
        topics: dict[str, list[tuple[int, int, int]]] = {}
        for part in one.parts:
            topic, number = part.feed.partition
            topics.setdefault(topic, []).append((number, part.offset, part.most_bytes))
        return FetchRequest(wait_ms, _LEAST_BYTES, one.most_bytes, self._kind.isolation, list(topics.items()))

    async def _recover(self) -> None:
        """Request metadata, and let the waiting partitions continue; repeat while there are more."""
        try:
            while self._resting:
                resting, self._resting = self._resting, set()
                try:
                    async with asyncio.timeout(self._client.connection.start_timeout):
                        await self._client.refresh()
                        for topic in {feed.partition.topic for feed in resting}:
                            await self._client.partitions_of(topic)
                except (*PASSING, OwnerError) as error:
                    for feed in resting:
                        if feed.waiting:
                            feed.fail(error)
                await asyncio.sleep(_NEW_LEADER_SECONDS)
                for feed in resting - self._resting:
                    feed.is_resting = False
                self._plan()
        finally:
            self._recovery = None


def _by_name(response: Any) -> dict[tuple[str, int], Fetched]:
    found = {}
    for topic, partitions in response.topics:
        for number, code, high_watermark, stable_end, *rest in partitions:
            aborted = rest[1] if response.API_VERSION >= _AS_MANY_TOPICS_AS else rest[-2]
            records = bytes(rest[-1] or b"")
            found[topic, number] = Fetched(code, high_watermark, stable_end, aborted or [], records, None)
    return found
