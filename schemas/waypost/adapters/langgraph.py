"""A LangGraph checkpointer: threads are sessions, writes go through Kafka, reads come from Postgres.

Needs the extra ``langgraph``. For the layout in a session, see :mod:`waypost.adapters._langgraph_layout`.
"""

import random
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
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

from waypost.adapters import _langgraph_cleanup as cleanup
from waypost.adapters import _langgraph_delta as delta
from waypost.adapters import _langgraph_layout as layout
from waypost.adapters._langgraph_cleaner import Cleaner
from waypost.adapters._langgraph_decode import ThreadEvent, decode
from waypost.adapters._langgraph_exposed import ExposedState, NodesOfSteps
from waypost.adapters._langgraph_listing import NEWEST, Listing
from waypost.adapters._langgraph_serializer import StrictSerializer, require_strict
from waypost.adapters._langgraph_threads import (
    PREFIX,
    KnownValues,
    name_metadata,
    session_of_thread,
)
from waypost.adapters.allowed_types import MissingValueError
from waypost.adapters.backend import (
    Backend,
    Durability,
    RejectedWriteError,
    checked_durability,
)
from waypost.adapters.records import Record, Row, containing, prefix_end, storable
from waypost.arguments import require_whole
from waypost.errors import InvalidArgumentError, quoted

__all__ = ["StrictSerializer", "ThreadEvent", "WaypostSaver", "decode"]

_STEPS: Final = 100  # checkpoints per step on the way back of a delta channel
_TRIES: Final = 3


class WaypostSaver(BaseCheckpointSaver[str]):
    """Checkpointer for LangGraph: ``builder.compile(checkpointer=WaypostSaver(backend))``.

    Reads are linearizable: they see every write, by any process, that was acknowledged before they began. The
    synchronous methods work from any thread except that of the backend's own event loop.

    Args:
        backend: The connection to Kafka and Postgres.
        durability: When a write returns. ``"accepted"``: once the publisher has it, or its spool; writes that Kafka
            does not have yet are lost with the process, and others see them a moment later. ``"logged"``: once Kafka
            has it, which loses nothing. ``"applied"``: once a worker has applied it, so that a rejection is raised
            immediately. Otherwise it is logged and raised by a later call on that thread.
        stale_ok: Whether reads may lack what other processes wrote last. They then need no Kafka.
        keep: The fewest checkpoints that each namespace of a thread keeps. Older ones are removed in the background
            once no run under way can still need them. None keeps all, and a full thread raises SessionFullError at
            each put until it is pruned.
        expose: Paths into the state, such as ``"messages[-1].content"``, whose values each checkpoint's metadata have
            as plain JSON: searchable, for every subscriber, and not encrypted.
        allowed_types: Your own classes that the state may hold, as such or as "module:qualname". Plain values and
            LangGraph's own types are always allowed. A put of any other type raises TypeNotAllowedError and stores
            nothing; a read raises it before anything is imported or run.
        serde: Replaces the serializer. One that wraps :class:`StrictSerializer` is as strict; any other one is used
            unchanged.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        durability: Durability = "logged",
        stale_ok: bool = False,
        keep: int | None = None,
        expose: Iterable[str] = (),
        allowed_types: Iterable[type | str] = (),
        serde: SerializerProtocol | None = None,
    ) -> None:
        if serde is None:
            serde = StrictSerializer(allowed_types)
        elif allowed_types:
            raise InvalidArgumentError(
                "allowed_types is for the serializer that the saver makes itself. Give it to the serializer that "
                "you pass: serde=EncryptedSerializer(cipher, StrictSerializer(allowed_types=[...]))"
            )
        require_strict(serde)
        super().__init__(serde=serde)
        if keep is not None:
            require_whole("keep", keep, 1)
        self._backend = backend
        self._durability = checked_durability(durability)
        self._stale_ok = stale_ok
        self._keep = keep
        self._cleaner = Cleaner(backend)
        self._known = KnownValues(cleanup.RELY_SECONDS)
        self._nodes = NodesOfSteps()
        self._exposed = ExposedState(expose)

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
        listing = self._listing(config, filter, before, limit)
        while page := await self._backend.join(listing.page()):
            for each in page:
                yield each

    @override
    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return what delta channels are built from at a checkpoint. See the base class."""
        return await self._backend.join(self._delta_history(config, channels))

    def _listing(
        self,
        config: RunnableConfig | None,
        wanted: dict[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> Listing:
        return Listing(self._backend, self.serde, self._stale_ok, config, wanted or {}, before, limit)

    async def _delta_history(
        self, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        configurable = config["configurable"]
        session_id = session_of_thread(str(configurable["thread_id"]))
        rows = await self._backend.rows(session_id, "index", stale_ok=self._stale_ok)
        ns = configurable.get("checkpoint_ns", "")
        walk = delta.walk_from(rows, ns, get_checkpoint_id(config), channels)
        for start in range(0, len(walk.path), _STEPS):
            if not walk.open:
                break
            numbers = [row.number for row in walk.path[start : start + _STEPS]]
            read = await self._backend.stored(session_id, "numbers", numbers)
            delta.look_at(walk, start, read, self.serde)
        read = await self._backend.stored(session_id, "numbers", walk.numbers())
        return delta.histories(walk, channels, read, self.serde)

    async def _get(self, config: RunnableConfig) -> CheckpointTuple | None:
        for _ in range(_TRIES):
            try:
                return await self._get_once(config)
            except MissingValueError:
                # Large values are read after their checkpoint, which may have been removed in the meantime.
                continue
        return await self._get_once(config)

    async def _get_once(self, config: RunnableConfig) -> CheckpointTuple | None:
        configurable = config["configurable"]
        thread_id = str(configurable["thread_id"])
        session_id = session_of_thread(thread_id)
        wanted = {"ns": configurable.get("checkpoint_ns", "")}
        if checkpoint_id := get_checkpoint_id(config):
            wanted["id"] = checkpoint_id
        began = time.monotonic()
        rows = await self._rows_of(session_id, wanted)
        found = layout.tuples(thread_id, rows, self.serde)
        if found:
            self._note_step(session_id, found[0], rows)
        if found and checkpoint_id is None and not self._stale_ok:
            self._known.note(session_id, layout.held_by(rows), began)
        return found[0] if found else None

    def _note_step(self, session_id: str, found: CheckpointTuple, rows: Iterable[Row]) -> None:
        """Note which nodes ran already from a checkpoint on, in another process or before an interrupt."""
        configurable = found.config["configurable"]
        ns, checkpoint_id = configurable["checkpoint_ns"], configurable["checkpoint_id"]
        step = (session_id, ns, checkpoint_id)
        self._nodes.starts(step, found.checkpoint["channel_values"])
        for row in layout.sound(rows):
            if row.name == layout.WRITES and layout.key_of(row) == (ns, checkpoint_id):
                self._nodes.ran(step, row.metadata.get("node", row.metadata.get("sent")))

    async def _rows_of(self, session_id: str, wanted: dict[str, Any]) -> list[Row]:
        """Return the newest checkpoint like this, with its values and writes: from Postgres, and what it lacks yet."""
        try:
            own = await self._backend.own_rows(session_id, stale_ok=self._stale_ok)
        except RejectedWriteError:
            self._known.forget(session_id)
            raise
        newest = layout.newest_of(own, wanted)
        if newest is None:
            stored = await self._backend.stored(
                session_id, "thread", containing(wanted), None, None, NEWEST, 1
            )
            return [*stored, *own]
        needs = sorted(
            set(newest.metadata["needs"]) - {each for row in own for each in row.metadata.get("holds", ())}
        )
        stored = await self._backend.stored(session_id, "holders", needs, *layout.key_of(newest))
        return [*stored, *(replace(row, chosen=row is newest) for row in own)]

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
        """Store the writes of a task. If this raises an error, none of them is visible."""
        await self._backend.join(self._put_writes(config, writes, task_id, task_path))

    @override
    async def adelete_thread(self, thread_id: str) -> None:
        """Delete everything of a thread."""
        await self._backend.join(self._clear(session_of_thread(str(thread_id))))

    @override
    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of these runs and their writes, in every thread.

        Scans all threads. Writes that delta channels of a later checkpoint are built from are removed as well.
        """
        await self._backend.join(self._delete_for_runs({str(run_id) for run_id in run_ids}))

    @override
    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints and writes of a thread, as of one moment, to another thread."""
        await self._backend.join(self._copy(str(source_thread_id), str(target_thread_id)))

    @override
    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete all but the newest checkpoint of each namespace (``keep_latest``), or everything (``delete``).

        The namespace of a subgraph call is removed with the checkpoint that the call belongs to. Records that the delta
        channels of the newest one are built from stay, and so do, for ten minutes, values that a run in progress may
        still need.
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
        session_id = session_of_thread(thread_id)
        ns = configurable.get("checkpoint_ns", "")
        nodes = self._nodes.of((session_id, ns, configurable.get("checkpoint_id", "")))
        self._nodes.starts((session_id, ns, checkpoint["id"]), checkpoint["channel_values"])
        began = time.monotonic()
        before, record = layout.checkpoint_records(
            self.serde,
            configurable,
            checkpoint,
            get_checkpoint_metadata(config, metadata),
            new_versions,
            stored=self._known.trusted(session_id, began) if self._backend.is_sending() else (),
            name=name_metadata(session_id, thread_id),
        )
        told = ({"nodes": nodes} if nodes else {}) | self._exposed.of(checkpoint["channel_values"])
        record = layout.tell(record, told)
        if before:
            # Kafka has a session's commands in order, so a caller that waits for the checkpoint does not have to wait
            # for its values.
            await self._append(session_id, before, "applied" if self._durability == "applied" else "accepted")
        await self._append(session_id, [record], self._durability)
        self._known.note(session_id, record.metadata["needs"], began)
        return layout.config_of(thread_id, ns, checkpoint["id"])

    async def _put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> None:
        configurable = config["configurable"]
        session_id = session_of_thread(str(configurable["thread_id"]))
        step = (session_id, configurable.get("checkpoint_ns", ""), configurable["checkpoint_id"])
        told = self._nodes.wrote(step, task_path)
        record = layout.writes_record(self.serde, configurable, writes, task_id, task_path, told)
        await self._append(session_id, [record], self._durability)

    async def _append(self, session_id: str, records: Sequence[Record], durability: Durability) -> None:
        try:
            appended = await self._backend.append(
                session_id, records, durability=durability, advice=self._advice()
            )
        except RejectedWriteError:
            self._known.forget(session_id)
            raise
        if self._keep is not None and appended.due:
            self._cleaner.begin(session_id, self._keep)

    def _advice(self) -> str:
        if self._keep is None:
            return "Prune the thread, delete it, or give WaypostSaver keep=N, so that old checkpoints leave"
        return (
            f"keep={self._keep} is set, and what it keeps fills the thread: lower it, prune the thread (what runs of "
            "the last ten minutes may need stays), or continue in another thread"
        )

    async def _delete_for_runs(self, run_ids: set[str]) -> None:
        stored = sorted(filter(storable, run_ids))

        def of_runs(rows: Sequence[Row]) -> set[layout.Key]:
            return {
                (row.metadata["ns"], row.metadata["id"])
                for row in layout.sound(rows)
                if row.name == layout.CHECKPOINT
                and str(row.metadata.get("facts", {}).get("run_id")) in run_ids
            }

        for (session_id,) in await self._backend.among("runs", PREFIX, prefix_end(PREFIX), stored):
            self._known.forget(session_id)
            await self._cleaner.run(session_id, of_runs, leased=False)

    async def _copy(self, source: str, target: str) -> None:
        if source == target:
            raise InvalidArgumentError(f"a thread can't be copied onto itself ({quoted(source)})")
        session_id = session_of_thread(target)
        name = name_metadata(session_id, target)

        def remade(metadata: dict[str, Any]) -> dict[str, Any]:
            told = {key: value for key, value in metadata.items() if key not in ("thread", "thread64")}
            return {**told, **(name if "facts" in metadata else {})}

        await self._backend.copy(session_of_thread(source), session_id, remade)

    async def _prune(self, thread_ids: Sequence[str], strategy: str) -> None:
        if strategy not in ("keep_latest", "delete"):
            raise InvalidArgumentError(f"the strategy is 'keep_latest' or 'delete', not {quoted(strategy)}")
        for thread_id in thread_ids:
            session_id = session_of_thread(thread_id)
            if strategy == "delete":
                await self._clear(session_id)
            else:
                await self._cleaner.run(session_id, _all_but_newest)

    async def _clear(self, session_id: str) -> None:
        self._known.forget(session_id)
        await self._backend.clear(session_id)

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
        listing = self._listing(config, filter, before, limit)
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
        self._backend.run(self._clear(session_of_thread(str(thread_id))))

    @override
    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        self._backend.run(self._delete_for_runs({str(run_id) for run_id in run_ids}))

    @override
    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        self._backend.run(self._copy(str(source_thread_id), str(target_thread_id)))

    @override
    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        self._backend.run(self._prune([str(thread_id) for thread_id in thread_ids], strategy))


def _all_but_newest(rows: Sequence[Row]) -> set[layout.Key]:
    return cleanup.older_than_newest(rows, 1, at_once=True)
