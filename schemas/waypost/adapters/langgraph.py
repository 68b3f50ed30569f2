"""A LangGraph checkpointer: threads are sessions, writes go through Kafka, reads come from Postgres.

Needs the extra ``langgraph``. How it lies in a session: :mod:`waypost.adapters._langgraph_layout`.
"""

import random
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

try:
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import (
        BaseCheckpointSaver,
        ChannelVersions,
        Checkpoint,
        CheckpointMetadata,
        CheckpointTuple,
        DeltaChannelHistory,
        get_checkpoint_id,
        get_checkpoint_metadata,
    )
    from langgraph.checkpoint.serde.base import SerializerProtocol
except ImportError as error:
    raise ImportError(
        "waypost.adapters.langgraph needs langgraph-checkpoint: install it with pip install 'waypost[langgraph]'"
    ) from error

from typing_extensions import override

from waypost.adapters import _langgraph_delta as delta
from waypost.adapters import _langgraph_layout as layout
from waypost.adapters._langgraph_serializer import StrictSerializer, require_strict
from waypost.adapters.backend import Appended, Backend
from waypost.adapters.records import Row, containing, is_hashed, prefix_end, session_of, storable
from waypost.errors import quoted

__all__ = ["StrictSerializer", "WaypostSaver"]

PREFIX: Final = "langgraph/"
_PAGE: Final = 25  # checkpoints read at once
_STEPS: Final = 100  # checkpoints looked at at once on the way back of a delta channel
_NEWEST: Final = 2**63 - 1


class WaypostSaver(BaseCheckpointSaver[str]):
    """Checkpointer for LangGraph: ``builder.compile(checkpointer=WaypostSaver(backend))``.

    A write is durable in Kafka, applied to Postgres and visible to every reader when its call returns. The plain
    methods work from any thread except that of the backend's own event loop.

    Args:
        backend: The connection to Kafka and Postgres.
        keep: The fewest checkpoints that each namespace of a thread keeps; older ones are removed from time to time.
            None keeps all, and a full thread raises SessionFullError at each put until it is pruned.
        allowed_types: Your own classes that the state may hold, as such or as "module:qualname". Plain values and
            LangGraph's own types are always allowed. A put of any other type raises TypeNotAllowedError and stores
            nothing; a read raises it before anything is imported or run.
        serde: Replaces the serializer. One that wraps :class:`StrictSerializer` is as strict; any other of yours is
            trusted as it is.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        keep: int | None = None,
        allowed_types: Iterable[type | str] = (),
        serde: SerializerProtocol | None = None,
    ) -> None:
        if serde is None:
            serde = StrictSerializer(allowed_types)
        elif allowed_types:
            raise ValueError(
                "allowed_types is for the serializer that the saver makes itself. Give it to the serializer that "
                "you pass: serde=EncryptedSerializer(cipher, StrictSerializer(allowed_types=[...]))"
            )
        require_strict(serde)
        super().__init__(serde=serde)
        if keep is not None and keep < 1:
            raise ValueError(f"keep must be at least 1, or None to keep all, not {keep}")
        self._backend = backend
        self._keep = keep

    @override
    def __repr__(self) -> str:
        return f"<WaypostSaver on {self._backend!r}, keep={self._keep}>"

    @override
    def get_next_version(self, current: str | int | float | None, channel: None) -> str:
        """Return the next version of a channel, different for each writer, so that none hides another's value."""
        number = 0 if current is None else int(str(current).split(".", 1)[0])
        return f"{number + 1:032}.{random.random():016}"

    # Reads.

    @override
    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that ``config`` names, or the newest of its namespace, or None."""
        return await self._backend.join(self._get(config))

    @override
    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Yield checkpoints, newest first, of a thread and namespace or of all. See the base class."""
        listing = _Listing(self._backend, self.serde, config, filter or {}, before, limit)
        while page := await self._backend.join(listing.page()):
            for each in page:
                yield each

    @override
    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return what delta channels are built from at a checkpoint. See the base class."""
        return await self._backend.join(self._delta_history(config, channels))

    async def _delta_history(
        self, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        configurable = config["configurable"]
        session_id = _session(str(configurable["thread_id"]))
        rows = await self._backend.rows(session_id, "index")
        ns = configurable.get("checkpoint_ns", "")
        walk = delta.walk_from(rows, ns, get_checkpoint_id(config), channels)
        for start in range(0, len(walk.path), _STEPS):
            if not walk.open:
                break
            numbers = [row.number for row in walk.path[start : start + _STEPS]]
            read = await self._backend.rows(session_id, "numbers", numbers)
            delta.look_at(walk, start, read, self.serde)
        read = await self._backend.rows(session_id, "numbers", walk.numbers())
        return delta.histories(walk, channels, read, self.serde)

    async def _get(self, config: RunnableConfig) -> CheckpointTuple | None:
        configurable = config["configurable"]
        thread_id = str(configurable["thread_id"])
        wanted = {"ns": configurable.get("checkpoint_ns", "")}
        if checkpoint_id := get_checkpoint_id(config):
            wanted["id"] = checkpoint_id
        rows = await self._backend.rows(_session(thread_id), "thread", containing(wanted), None, _NEWEST, 1)
        found = layout.tuples(thread_id, rows, self.serde)
        return found[0] if found else None

    # Writes.

    @override
    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint, and return the config that names it."""
        return await self._backend.join(self._put(config, checkpoint, metadata, new_versions))

    @override
    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store what a task wrote. If this raises, nothing of it is visible."""
        await self._backend.join(self._put_writes(config, writes, task_id, task_path))

    @override
    async def adelete_thread(self, thread_id: str) -> None:
        """Delete everything of a thread."""
        await self._backend.join(self._backend.clear(_session(str(thread_id))))

    @override
    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of these runs and their writes, in every thread.

        Looks through all threads. What a delta channel of a later checkpoint is built from goes as well.
        """
        await self._backend.join(self._delete_for_runs({str(run_id) for run_id in run_ids}))

    @override
    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints and writes of a thread, as of one moment, to another thread."""
        await self._backend.join(self._copy(str(source_thread_id), str(target_thread_id)))

    @override
    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete all but the newest checkpoint of each namespace (``keep_latest``), or everything (``delete``).

        What the delta channels of the newest one are built from is kept too.
        """
        await self._backend.join(self._prune([str(thread_id) for thread_id in thread_ids], strategy))

    async def _put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        configurable = config["configurable"]
        thread_id = str(configurable["thread_id"])
        session_id = _session(thread_id)
        told = get_checkpoint_metadata(config, metadata)
        before, record = layout.checkpoint_records(self.serde, configurable, checkpoint, told, new_versions)
        record.metadata.update(_named(session_id, thread_id))
        if before:
            await self._look_after(session_id, await self._backend.append(session_id, before))
        await self._look_after(session_id, await self._backend.append(session_id, [record]))
        return layout.config_of(thread_id, configurable.get("checkpoint_ns", ""), checkpoint["id"])

    async def _put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> None:
        session_id = _session(str(config["configurable"]["thread_id"]))
        record = layout.writes_record(self.serde, config["configurable"], writes, task_id, task_path)
        await self._look_after(session_id, await self._backend.append(session_id, [record]))

    async def _look_after(self, session_id: str, appended: Appended) -> None:
        if self._keep is not None and appended.due:
            rows = await self._backend.rows(session_id, "index")
            await self._drop(session_id, rows, layout.older_than_newest(rows, self._keep))

    async def _drop(self, session_id: str, rows: Sequence[Row], dropped: set[layout.Key]) -> None:
        plan = layout.plan(rows, dropped)
        if plan.carry:
            carriers = await self._backend.rows(session_id, "numbers", plan.carriers)
            for record in layout.carried(carriers, plan.carry):
                await self._backend.append(session_id, [record])
        if plan.gone:
            await self._backend.delete(session_id, plan.gone)

    async def _delete_for_runs(self, run_ids: set[str]) -> None:
        stored = sorted(filter(storable, run_ids))
        found = await self._backend.among("runs", PREFIX, prefix_end(PREFIX), stored)
        for session_id in found:
            rows = await self._backend.rows(session_id, "index")
            dropped = {
                (row.metadata["ns"], row.metadata["id"])
                for row in layout.sound(rows)
                if row.name == layout.CHECKPOINT
                and str(row.metadata.get("facts", {}).get("run_id")) in run_ids
            }
            await self._drop(session_id, rows, dropped)

    async def _copy(self, source: str, target: str) -> None:
        if source == target:
            raise ValueError(f"a thread can't be copied onto itself ({quoted(source)})")
        session_id = _session(target)

        def remade(metadata: dict[str, Any]) -> dict[str, Any]:
            told = {key: value for key, value in metadata.items() if key != "thread"}
            return {**told, **(_named(session_id, target) if "needs" in metadata else {})}

        await self._backend.copy(_session(source), session_id, remade)

    async def _prune(self, thread_ids: Sequence[str], strategy: str) -> None:
        if strategy not in ("keep_latest", "delete"):
            raise ValueError(f"the strategy is 'keep_latest' or 'delete', not {quoted(strategy)}")
        for thread_id in thread_ids:
            session_id = _session(thread_id)
            if strategy == "delete":
                await self._backend.clear(session_id)
            else:
                rows = await self._backend.rows(session_id, "index")
                await self._drop(session_id, rows, layout.older_than_newest(rows, 1))

    # The same for code without an event loop.

    @override
    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return self._backend.run(self._get(config))

    @override
    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        return self._backend.run(self._delta_history(config, channels))

    @override
    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        listing = _Listing(self._backend, self.serde, config, filter or {}, before, limit)
        while page := self._backend.run(listing.page()):
            yield from page

    @override
    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return self._backend.run(self._put(config, checkpoint, metadata, new_versions))

    @override
    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self._backend.run(self._put_writes(config, writes, task_id, task_path))

    @override
    def delete_thread(self, thread_id: str) -> None:
        self._backend.run(self._backend.clear(_session(str(thread_id))))

    @override
    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        self._backend.run(self._delete_for_runs({str(run_id) for run_id in run_ids}))

    @override
    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        self._backend.run(self._copy(str(source_thread_id), str(target_thread_id)))

    @override
    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        self._backend.run(self._prune([str(thread_id) for thread_id in thread_ids], strategy))


class _Listing:
    """The state of one listing: pages of checkpoints, thread after thread."""

    def __init__(
        self,
        backend: Backend,
        serde: SerializerProtocol,
        config: RunnableConfig | None,
        wanted: dict[str, Any],
        before: RunnableConfig | None,
        limit: int | None,
    ) -> None:
        self._backend = backend
        self._serde = serde
        self._filter = wanted
        self._before = None if before is None else get_checkpoint_id(before)
        self._left = _NEWEST if limit is None else limit
        configurable = {} if config is None else config["configurable"]
        self._contained: dict[str, Any] = {}
        if (ns := configurable.get("checkpoint_ns")) is not None:
            self._contained["ns"] = ns
        if checkpoint_id := configurable.get("checkpoint_id"):
            self._contained["id"] = checkpoint_id
        facts = layout.searchable(wanted)
        self._facts = containing({"facts": facts}) if facts else None
        self._sessions: AsyncIterator[str] = (
            backend.sessions(PREFIX) if config is None else _only(_session(str(configurable["thread_id"])))
        )
        self._session_id: str | None = None
        self._end = 0
        self._below: str | None = None  # ids below it, where the thread holds no checkpoint of that id
        self._seen: set[layout.Key] = set()

    async def page(self) -> Sequence[CheckpointTuple]:
        """The next checkpoints; none at the end."""
        while self._left > 0:
            if self._session_id is None and not await self._next_session():
                return []
            session_id = str(self._session_id)
            rows = await self._backend.rows(
                session_id,
                "thread",
                containing(self._contained),
                self._facts,
                self._end,
                min(self._left, _PAGE),
            )
            chosen = [row for row in layout.sound(rows) if row.chosen]
            if not chosen:
                self._session_id = None
                continue
            self._end = chosen[0].number
            if found := self._passing(_thread(session_id, chosen[0]), rows):
                return found
        return []

    def _passing(self, thread_id: str, rows: Sequence[Row]) -> Sequence[CheckpointTuple]:
        found: list[CheckpointTuple] = []
        for each in layout.tuples(thread_id, rows, self._serde):
            configurable = each.config["configurable"]
            key = (configurable["checkpoint_ns"], configurable["checkpoint_id"])
            # A checkpoint that was put again counts where it was put last.
            if (
                key not in self._seen
                and (self._below is None or key[1] < self._below)
                and layout.matching(self._filter, each.metadata)
            ):
                self._seen.add(key)
                found.append(each)
        found = found[: self._left]
        self._left -= len(found)
        return found

    async def _next_session(self) -> bool:
        async for session_id in self._sessions:
            self._session_id, self._end, self._seen = session_id, _NEWEST, set()
            if self._before is not None:
                wanted = containing({**self._contained, "id": self._before})
                places = await self._backend.values(session_id, "place", wanted)
                self._end = places[0] if places else _NEWEST
                self._below = None if places else self._before
            return True
        return False


async def _only(session_id: str) -> AsyncIterator[str]:
    yield session_id


def _session(thread_id: str) -> str:
    return session_of(PREFIX, thread_id)


def _named(session_id: str, thread_id: str) -> dict[str, str]:
    """What tells the thread where its session id can't."""
    return {"thread": thread_id} if is_hashed(PREFIX, session_id) else {}


def _thread(session_id: str, row: Row) -> str:
    return str(row.metadata.get("thread", session_id.removeprefix(PREFIX)))
