"""A checkpoint storage of the Microsoft Agent Framework: one record per workflow checkpoint.

Needs the extra ``agent-framework``. Values that JSON can't carry are in the framework's own encoding, which is a
pickle. They are read by :mod:`waypost.adapters._agent_framework_values`, which runs none of it.
"""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any, Final

try:
    from agent_framework import WorkflowCheckpoint, WorkflowCheckpointException
    from agent_framework._workflows._checkpoint_encoding import encode_checkpoint_value
except ImportError as error:
    raise ImportError(
        "waypost.adapters.agent_framework needs agent-framework-core: install it with "
        "pip install 'waypost[agent-framework]'"
    ) from error

from typing_extensions import override

from waypost.adapters._agent_framework_values import PARAMETER, ValueDecoder
from waypost.adapters.allowed_types import DecodeError, shown
from waypost.adapters.backend import (
    Appended,
    Backend,
    Durability,
    checked_durability,
)
from waypost.adapters.loose_json import member, value_of
from waypost.adapters.records import (
    Record,
    Row,
    containing,
    gone_with_parts,
    require_searchable,
    session_of,
)
from waypost.arguments import require_whole
from waypost.errors import InvalidCommandError, quoted

__all__ = ["WaypostCheckpointStorage"]

PREFIX: Final = "agent-framework/"
CHECKPOINT: Final = "checkpoint"
_ALL: Final = 2**31
# The framework's own contents of a checkpoint, by field: it accepts any type, and fails on it later.
_KINDS: Final = {
    each.name: type(getattr(WorkflowCheckpoint(workflow_name="", graph_signature_hash=""), each.name))
    for each in fields(WorkflowCheckpoint)
    if each.name != "previous_checkpoint_id"
}


class WaypostCheckpointStorage:
    """Storage of workflow checkpoints.

    Use it as ``WorkflowBuilder(…, checkpoint_storage=WaypostCheckpointStorage(backend, "run-7"))``.

    Args:
        backend: The connection to Kafka and Postgres.
        scope: The session that holds the checkpoints. Use one for each conversation or run, since each is bounded.
        durability: When ``save`` returns: once the publisher has the checkpoint (``"accepted"``), once Kafka has it
            (``"logged"``), or once a worker applied it (``"applied"``). See :class:`waypost.adapters.Backend`.
        stale_ok: Whether reads may lack what other processes wrote last. They then need no Kafka.
        keep: The fewest checkpoints that stay for each workflow name; older ones are removed from time to time. None
            keeps all, and a full scope raises SessionFullError at the next save.
        allowed_checkpoint_types: Your own classes in the state, as such or as ``"module:qualname"``, as for the
            framework's file storage. A save of any other type stores nothing, and a load of one runs nothing: both
            raise WorkflowCheckpointException.
    """

    def __init__(
        self,
        backend: Backend,
        scope: str,
        *,
        durability: Durability = "logged",
        stale_ok: bool = False,
        keep: int | None = 100,
        allowed_checkpoint_types: Iterable[type | str] = (),
    ) -> None:
        if keep is not None:
            require_whole("keep", keep, 1)
        self._backend = backend
        self._session = session_of(PREFIX, scope)
        self._durability = checked_durability(durability)
        self._stale_ok = stale_ok
        self._keep = keep
        self._decoder = ValueDecoder(allowed_checkpoint_types)

    @override
    def __repr__(self) -> str:
        return f"<WaypostCheckpointStorage of {self._session!r} on {self._backend!r}, keep={self._keep}>"

    async def save(self, checkpoint: WorkflowCheckpoint) -> str:
        """Store a copy, which everybody sees once this returns, and return its id. It replaces one with the same id.

        Raises:
            WorkflowCheckpointException: It could not be read back.
        """
        return await self._backend.join(self._save(checkpoint))

    async def load(self, checkpoint_id: str) -> WorkflowCheckpoint:
        """Return the checkpoint with this id.

        Raises:
            WorkflowCheckpointException: There is none.
        """
        found = await self._backend.join(self._newest({"id": checkpoint_id}))
        if not found:
            raise WorkflowCheckpointException(f"No checkpoint found with ID {shown(checkpoint_id)}")
        return self._decoded(found[0])

    async def list_checkpoints(self, *, workflow_name: str) -> list[WorkflowCheckpoint]:
        """Return all checkpoints of a workflow, in the order in which they were saved."""
        found = await self._backend.join(self._find({"workflow": workflow_name}, _ALL))
        newest = {row.metadata["id"]: row for row in _of_workflow(found[::-1], workflow_name)}
        return [self._decoded(row) for row in newest.values()]

    async def delete(self, checkpoint_id: str) -> bool:
        """Delete a checkpoint, and tell whether there was one."""
        return await self._backend.join(self._delete(checkpoint_id))

    async def get_latest(self, *, workflow_name: str) -> WorkflowCheckpoint | None:
        """Return the checkpoint that was saved last, whatever the clocks of machines say."""
        found = await self._backend.join(self._newest({"workflow": workflow_name}))
        return self._decoded(found[0]) if found else None

    async def list_checkpoint_ids(self, *, workflow_name: str) -> list[str]:
        """Return the ids of :meth:`list_checkpoints`, without reading the checkpoints."""
        rows = await self._backend.join(self._backend.rows(self._session, "index", stale_ok=self._stale_ok))
        return list(dict.fromkeys(row.metadata["id"] for row in _of_workflow(rows, workflow_name)))

    async def _save(self, checkpoint: WorkflowCheckpoint) -> str:
        try:
            encoded = _encoded(checkpoint)
            self._decoder.decoded(encoded)
            record = Record(CHECKPOINT, member(CHECKPOINT, encoded), _described(checkpoint))
            appended = await self._append(record)
        except InvalidCommandError as error:
            raise WorkflowCheckpointException(
                f"Checkpoint {shown(checkpoint.checkpoint_id)} can't be stored: {error}"
            ) from error
        except DecodeError as error:
            raise WorkflowCheckpointException(
                f"Checkpoint {shown(checkpoint.checkpoint_id)} can't be stored. {error.on_write(PARAMETER)}"
            ) from error
        if (keep := self._keep) is not None and appended.due:
            self._backend.tidy(self._session, lambda: self._drop_old(keep))
        return checkpoint.checkpoint_id

    async def _append(self, record: Record) -> Appended:
        advice = (
            "Delete checkpoints, use a scope for each run, or give WaypostCheckpointStorage keep=N, so that old ones "
            "leave"
            if self._keep is None
            else f"keep={self._keep} is set for each workflow's name: lower it, or use a scope for each run"
        )
        return await self._backend.append(self._session, [record], durability=self._durability, advice=advice)

    async def _drop_old(self, keep: int) -> None:
        rows = await self._backend.rows(self._session, "index")
        outdated: set[int] = set()
        for name in {row.metadata["workflow"] for row in rows if _is_ours(row)}:
            outdated.update(row.number for row in _of_workflow(rows, name)[:-keep])
        if outdated:
            await self._backend.delete(self._session, gone_with_parts(rows, outdated))

    async def _find(self, metadata: dict[str, str], limit: int) -> list[Row]:
        return await self._backend.rows(
            self._session, "newest", CHECKPOINT, containing(metadata), limit, stale_ok=self._stale_ok
        )

    async def _newest(self, metadata: dict[str, str]) -> list[Row]:
        found = await self._find(metadata, 1)
        if found and not _is_ours(found[0]):
            found = [row for row in await self._find(metadata, _ALL) if _is_ours(row)]
        return found[:1]

    async def _delete(self, checkpoint_id: str) -> bool:
        rows = await self._backend.rows(self._session, "index")
        found = {row.number for row in rows if _is_ours(row) and row.metadata["id"] == checkpoint_id}
        return bool(found) and await self._backend.delete(self._session, gone_with_parts(rows, found))

    def _decoded(self, row: Row) -> WorkflowCheckpoint:
        try:
            try:
                stored = value_of(CHECKPOINT, row.data)
            except ValueError as error:
                raise DecodeError(f"its JSON is damaged: {shown(str(error))}") from None
            decoded = self._decoder.decoded(stored)
            if not isinstance(decoded, dict):
                raise DecodeError("it is not a checkpoint of the Agent Framework")
        except DecodeError as error:
            raise WorkflowCheckpointException(
                f"Checkpoint {shown(str(row.metadata['id']))} can't be read. {error.on_read(PARAMETER)}"
            ) from error
        try:
            checkpoint = WorkflowCheckpoint.from_dict(decoded)
        except Exception as error:
            raise _no_checkpoint(row, quoted(error)) from error
        for name, kind in _KINDS.items():
            if not isinstance(getattr(checkpoint, name), kind):
                raise _no_checkpoint(row, f"its {name} is a {type(getattr(checkpoint, name)).__name__}")
        return checkpoint


def _no_checkpoint(row: Row, why: str) -> WorkflowCheckpointException:
    return WorkflowCheckpointException(
        f"Checkpoint {shown(str(row.metadata['id']))} can't be read. It is not a checkpoint of the Agent Framework: "
        f"{shown(why)}"
    )


def _encoded(checkpoint: WorkflowCheckpoint) -> Any:
    try:
        return encode_checkpoint_value(checkpoint.to_dict())
    except RecursionError:
        raise InvalidCommandError("invalid-body", "its state is nested too deeply") from None


def _of_workflow(rows: list[Row], workflow_name: str) -> list[Row]:
    return [row for row in rows if _is_ours(row) and row.metadata["workflow"] == workflow_name]


def _is_ours(row: Row) -> bool:
    """Return whether the metadata is as the adapter writes it. Other writers to the topic can put in anything else."""
    return row.name == CHECKPOINT and all(
        isinstance(row.metadata.get(key), str) for key in ("id", "workflow")
    )


def _described(checkpoint: WorkflowCheckpoint) -> dict[str, Any]:
    """The searchable metadata by which checkpoints are found."""
    require_searchable("the workflow's name", checkpoint.workflow_name)
    require_searchable("its id", checkpoint.checkpoint_id)
    require_searchable("the previous checkpoint's id", checkpoint.previous_checkpoint_id or "")
    return {
        "id": checkpoint.checkpoint_id,
        "workflow": checkpoint.workflow_name,
        "previous": checkpoint.previous_checkpoint_id,
        "iteration": checkpoint.iteration_count,
    }
