"""Which partitions are fetched together, when, and what an answer means to each of them.

All partitions of a process that one broker leads go into one request, which the broker holds until a record comes (the
main request). It is sent if an owner waits, and takes the partitions of busy owners along if they have room, so that
their next records are here when they ask.

Records accumulate while those of the last request are processed: with a thousand commands per second over 24
partitions, a separate fetch, commit and append for each command would keep two cores busy. Owners that are done wait
for the others of their round, but no longer than ``GATHER`` seconds.

A partition that waits and is not in the main request, because it was acquired, moved or full when that was sent, does
not wait until the broker answers: it gets a short request in addition. To get all of them into one request again, the
main request is short as well while there is another one.

Owns this logic and no I/O: no connection, no clock, no tasks.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, NamedTuple
from uuid import UUID

from aiokafka import TopicPartition
from aiokafka.errors import for_code

from waypost.kafka.record_batches import end_of
from waypost_worker.kafka.fetch_by_id import INCONSISTENT_TOPIC_ID, NO_EPOCH, UNKNOWN_TOPIC_ID, Fetched

FETCH_BYTES: Final = 8 * 1024 * 1024
"""Most bytes of an answer. Only a batch that is larger comes nevertheless, alone."""
GATHER: Final = 0.005
"""Seconds that records gather at most before they are fetched."""

# A partition's part of an answer, however many partitions there are.
_LEAST_SHARE: Final = 1024 * 1024
# The most that may wait here unread for busy owners.
_BUFFERED_BYTES: Final = 4 * FETCH_BYTES
_OTHER_TOPIC: Final = (UNKNOWN_TOPIC_ID, INCONSISTENT_TOPIC_ID)


class UnknownTopicIdError(Exception):
    """A broker does not know the id of a topic: the topic was replaced, or the broker has not heard of it yet."""


class LogCutError(Exception):
    """The log ends, or was written by an earlier leader, where it had records before."""

    def __init__(self, position: int, end: int) -> None:
        super().__init__(position, end)
        self.position = position
        self.end = end


class Outcome(Enum):
    """The meaning of an answer for a partition: records, nothing to process, or a reason to find its leader again."""

    FED = auto()
    NOTHING = auto()
    DISTURBED = auto()


@dataclass(eq=False, slots=True)
class Feed:
    """One partition's part in shared fetches: where to fetch from next, and records that have not been read yet.

    ``disturbances`` counts events that may mean that the log has a new leader or is a different log. ``ends`` are the
    last stable offset and the high watermark from the last answer. An error that concerns the partition is raised once
    everything before it has been taken.
    """

    partition: TopicPartition
    most_bytes: int = FETCH_BYTES
    topic_id: UUID | None = None
    is_named: bool = False  # brokers are too old for topic ids
    offset: int = 0
    last_epoch: int = NO_EPOCH
    disturbances: int = 0
    ends: tuple[int | None, int | None] = (None, None)
    waiting: bool = False
    is_resting: bool = False  # until metadata is new
    wake: Callable[[], None] | None = None
    #: The request under way that asks for what comes next.
    request: "FetchRound | None" = None
    seen_start: int = 0
    is_behind: bool = False  # the log continues after what was fetched
    stop: int | None = None  # nothing is fetched ahead from here on
    _turn: int = 0
    _queue: deque[Fetched] = field(default_factory=deque)
    _queued: int = 0
    _fault: BaseException | None = None

    @property
    def is_by_id(self) -> bool:
        """Return whether the request names the topic by its id."""
        return self.topic_id is not None and not self.is_named

    @property
    def turn(self) -> int:
        """Return a new turn, as after each move. Answers to requests of an earlier turn are dropped."""
        return self._turn

    @property
    def queued(self) -> int:
        """Return how many received bytes have not been taken."""
        return self._queued

    @property
    def is_ready(self) -> bool:
        """Return whether there is something to take or to raise."""
        return bool(self._queue) or self._fault is not None

    def move(self, offset: int, last_epoch: int = NO_EPOCH) -> None:
        """Drop everything received or under way, and continue from ``offset``."""
        self._turn += 1
        self.request = None
        self._queue.clear()
        self._queued = 0
        self.is_behind = False
        self._fault = None
        self.stop = None
        self.offset, self.last_epoch = offset, last_epoch

    def take(self) -> Fetched | None:
        """Return what came next; None if everything was taken."""
        if not self._queue:
            return None
        fetched = self._queue.popleft()
        self._queued -= len(fetched.records)
        return fetched

    def raise_fault(self) -> None:
        """Raise what went wrong behind all that was taken, once."""
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault

    def fail(self, error: BaseException) -> None:
        """Let :meth:`raise_fault` raise this, behind what came."""
        self._fault = error
        self._call()

    def disturb(self) -> None:
        """Note that the log may have another leader now, or may be another one."""
        self.disturbances += 1

    def wants(self, share: int) -> bool:
        """Return whether this partition needs a request."""
        return (self.waiting and not self._queue) or (self.is_behind and self.has_room(share))

    def has_room(self, share: int) -> bool:
        """Return whether the partition may be requested now."""
        return 2 * self._queued < share and self._fault is None and not self.is_resting

    def deliver(self, fetched: Fetched) -> Outcome:
        """Take what a broker answered to the question for ``offset``."""
        code = fetched.error_code
        if code:
            error = for_code(code)
            if getattr(error, "invalid_metadata", False):
                return Outcome.DISTURBED
            place = f"{self.partition.topic}/{self.partition.partition} from {self.offset} on"
            self.fail(UnknownTopicIdError() if code in _OTHER_TOPIC else error(f"fetching {place}"))
            return Outcome.NOTHING
        if fetched.cut_at is not None:
            self.fail(LogCutError(self.offset, fetched.cut_at))
            return Outcome.NOTHING
        known = fetched.stable_end >= 0
        self.ends = (fetched.stable_end, fetched.high_watermark) if known else (None, None)
        if not fetched.records:
            self.is_behind = False
            return Outcome.NOTHING
        end, last_epoch = end_of(fetched.records)
        if NO_EPOCH < last_epoch < self.last_epoch:  # later records are never of an earlier leader
            self.fail(LogCutError(self.offset, end))
            return Outcome.NOTHING
        self._queue.append(fetched)
        self._queued += len(fetched.records)
        wanted = fetched.stable_end if self.stop is None else min(self.stop, fetched.stable_end)
        self.is_behind = self.offset < end < wanted
        self.offset = max(self.offset, end)
        self.last_epoch = max(self.last_epoch, last_epoch)
        self._call()
        return Outcome.FED

    def _call(self) -> None:
        self.waiting = False
        if self.wake is not None:
            self.wake()


class Part(NamedTuple):
    """A partition in a request, as it was when it was asked for."""

    feed: Feed
    turn: int
    offset: int
    last_epoch: int
    most_bytes: int
    was_waiting: bool

    @property
    def counts(self) -> bool:
        """Return whether the partition still wants the answer."""
        return self.feed.turn == self.turn


@dataclass(eq=False, slots=True)
class FetchRound:
    """One request to a broker. ``is_beside`` says that it must not wait for the main one."""

    node: int
    by_id: bool
    is_beside: bool
    is_long: bool
    most_bytes: int
    parts: list[Part]

    @property
    def live(self) -> list[Part]:
        """The parts whose partitions still want the answer."""
        return [part for part in self.parts if part.counts]


@dataclass(slots=True)
class _Route:
    """The requests under way to one broker, and the owners that process its answers."""

    main: FetchRound | None = None
    beside: FetchRound | None = None
    at_work: set[Feed] = field(default_factory=set)
    gathers_until: float = 0.0


class FetchSchedule(NamedTuple):
    """The next steps: requests to send, partitions without a known leader, and when to plan again (None: when something
    changes).
    """

    rounds: list[FetchRound]
    homeless: list[Feed]
    again_at: float | None


class FetchPlanner:
    """Plans the fetches of all partitions of a process. ``gather`` is how many seconds records gather at most;
    ``is_long`` says that the main request waits for records.
    """

    def __init__(self, *, gather: float = GATHER, is_long: bool = True) -> None:
        self._gather = gather
        self._is_long = is_long
        # In the order in which they are asked for: a broker fills its answer from the front.
        self._feeds: dict[Feed, None] = {}
        self._routes: dict[tuple[int, bool], _Route] = {}
        self._route_of: dict[Feed, _Route] = {}

    @property
    def feeds(self) -> Iterable[Feed]:
        """The partitions that are fetched."""
        return self._feeds.keys()

    def add(self, feed: Feed) -> None:
        """Fetch a partition from now on. Adding it again changes nothing."""
        self._feeds.setdefault(feed)

    def remove(self, feed: Feed) -> None:
        """Stop fetching a partition. Its pending answers are dropped."""
        self._feeds.pop(feed, None)
        route = self._route_of.pop(feed, None)
        if route is not None:
            route.at_work.discard(feed)
        feed.move(feed.offset)

    def returned(self, feed: Feed, now: float) -> float | None:
        """Note that an owner waits; return when to plan, None if all is under way."""
        route = self._route_of.get(feed)
        if route is not None:
            route.at_work.discard(feed)
        if feed.request is not None:
            return None
        if route is not None and route.main is None and route.at_work:
            return max(now, route.gathers_until)
        return now

    def plan(self, now: float, leader_of: Callable[[TopicPartition], int | None]) -> FetchSchedule:
        """Return the requests that are due."""
        share = max(_LEAST_SHARE, FETCH_BYTES // max(1, len(self._feeds)))
        asked: dict[tuple[int, bool], list[Feed]] = {}
        schedule = FetchSchedule([], [], None)
        for feed in self._askable(share):
            node = leader_of(feed.partition)
            if node is not None:
                asked.setdefault((node, feed.is_by_id), []).append(feed)
            elif feed.wants(share):
                schedule.homeless.append(feed)
        again_at: list[float] = []
        for (node, by_id), feeds in asked.items():
            if not any(feed.wants(share) for feed in feeds):
                continue
            route = self._routes.setdefault((node, by_id), _Route())
            for feed in feeds:
                self._route_of[feed] = route
            if route.main is None:
                is_late = any(feed.wants(share) and not feed.waiting for feed in feeds)
                if route.at_work and now < route.gathers_until and not is_late:
                    again_at.append(route.gathers_until)
                    continue
                is_long = self._is_long and route.beside is None
                route.main = _round(node, by_id, feeds, share, is_beside=False, is_long=is_long)
                schedule.rounds.append(route.main)
            elif route.beside is None and route.main.is_long:
                route.beside = _round(node, by_id, feeds, share, is_beside=True, is_long=False)
                schedule.rounds.append(route.beside)
        return schedule._replace(again_at=min(again_at, default=None))

    def _askable(self, share: int) -> Iterable[Feed]:
        """The feeds that may be asked for now, at most one of each partition: a request can't name it twice."""
        is_full = sum([feed.queued for feed in self._feeds]) > _BUFFERED_BYTES
        chosen: dict[TopicPartition, Feed] = {}
        put_off: list[Feed] = []
        for feed in self._feeds:
            if feed.request is not None or not feed.has_room(share) or (is_full and not feed.waiting):
                continue
            other = chosen.setdefault(feed.partition, feed)
            if other is not feed:
                if feed.waiting and not other.waiting:
                    chosen[feed.partition] = feed
                else:
                    put_off.append(feed)
        if put_off:  # their turn comes first the next time
            self._feeds = dict.fromkeys([*put_off, *self._feeds])
        return chosen.values()

    def answered(self, done: FetchRound, fed: Iterable[Feed], now: float) -> None:
        """Note that a request was answered, or failed, and which partitions got something to work on."""
        route = self._routes[done.node, done.by_id]
        for part in done.live:
            part.feed.request = None
        if done.is_beside:
            route.beside = None
        else:
            route.main = None
            route.at_work = set(fed)
            route.gathers_until = now + self._gather
        for feed in fed:
            if feed in self._feeds:  # behind those that got nothing
                del self._feeds[feed]
                self._feeds[feed] = None


def _round(
    node: int, by_id: bool, feeds: list[Feed], share: int, *, is_beside: bool, is_long: bool
) -> FetchRound:
    parts = [
        Part(feed, feed.turn, feed.offset, feed.last_epoch, min(share, feed.most_bytes), feed.waiting)
        for feed in feeds
    ]
    most_bytes = min(FETCH_BYTES, sum([part.most_bytes for part in parts]))
    made = FetchRound(node, by_id, is_beside, is_long, most_bytes, parts)
    for feed in feeds:
        feed.request = made
    return made
