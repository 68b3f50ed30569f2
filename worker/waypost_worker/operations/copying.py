"""A copy of a session, elsewhere or starting at one of its checkpoints: the rows of one moment in Postgres, as
commands.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from waypost.errors import InvalidCommandError
from waypost.model.encrypted_data import is_encrypted
from waypost.publisher.calls import IMPORT_PART_BYTES
from waypost.reader.session import checkpoints_of
from waypost.wire.encode import checkpoint_body, metadata_json, policy_body
from waypost.wire.event_types import EventType
from waypost_worker.operations.errors import OperationError
from waypost_worker.operations.interchange import line_of, parts_of_lines
from waypost_worker.operations.stored_session import FORKED_FROM
from waypost_worker.operations.transfer import Step

if TYPE_CHECKING:
    from waypost.encryption.codec import Codec
    from waypost.model.checkpoint import Checkpoint
    from waypost.reader.client import Reader, SnapshotSet

_MICROS: Final = 1_000_000


class CopyPlan:
    """The steps that make one session of another, from what Postgres holds at one moment."""

    def __init__(self, origin: str, name: str, *, transfer: str, last: str | None = None) -> None:
        self.origin = origin
        self.name = name
        self.transfer = transfer
        self.last = last  # a fork ends with this checkpoint
        self.checkpoints = 0
        self._codec: Codec | None = None  # decrypts what goes to another deployment
        self._encrypts = self._keeps_keys = False
        self._pinned: list[str] = []
        self._policy: bytes | None = None

    async def prepare(self, reader: "Reader", target: "Codec | None") -> None:
        """Refuse what can't be done; nothing has been sent yet. ``target`` encrypts where the copy will be."""
        await self._choose_codec(reader.codec, target)
        info = await reader.session_info(self.origin)
        if info is None:
            raise OperationError(f"no session {self.origin!r} is known")
        if info.policy is not None:
            age = info.policy["max_age"]
            seconds = None if age is None else age / _MICROS
            self._policy = policy_body({**info.policy, "max_age": seconds})
        if self.last is None:
            return
        found = await reader.session(self.origin).get(self.last)
        if found is None:
            raise OperationError(f"{self.origin!r} holds no checkpoint {self.last!r}; nothing was changed")
        self.last = found.id
        if await reader.session_info(self.name) is not None and not await self._begun(reader):
            raise OperationError(
                f"there is already a session {self.name!r}; nothing was changed. Choose another name for the fork"
            )

    async def _choose_codec(self, here: "Codec | None", there: "Codec | None") -> None:
        """Decide how encrypted data gets there.

        Within a deployment it stays encrypted with the key of its origin, and the publisher makes it the target's. To
        another one it is decrypted here and encrypted again there.
        """
        self._encrypts = there is not None
        if here is not None and there is not None:
            other = await here.store.deployment() != await there.store.deployment()
            self._codec = here if other else None
            self._keeps_keys = not other

    async def _begun(self, reader: "Reader") -> bool:
        """Return whether the existing session is this same fork, which was interrupted."""
        async for checkpoint in reader.session(self.name):
            if checkpoint.imported_id is None or checkpoint.imported_id.rpartition(":")[0] != self.origin:
                return False
        return True

    async def steps(self, reader: "Reader") -> AsyncIterator[Step]:
        """The policy first, so that the default one drops nothing; the pins at the end."""
        if self._policy is not None:
            yield Step(self.name, EventType.CONFIGURE, self._policy, "the policy")
        async with reader.snapshot() as snapshot, aclosing(self._lines(snapshot)) as lines:
            async for body in self._bodies(lines):
                yield Step(self.name, EventType.IMPORT, body, "a part of the checkpoints")
        for identifier in self._pinned:
            body = checkpoint_body(identifier)
            yield Step(self.name, EventType.PIN, body, f"the pin of {identifier}", may_fail=True)

    async def _bodies(self, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        held: list[bytes] = []
        size = 0
        async for line in lines:
            if held and size + len(line) > IMPORT_PART_BYTES:
                for part in parts_of_lines(held, self.name, "skip", encrypts=self._encrypts):
                    yield part.body
                held, size = [], 0
            held.append(line)
            size += len(line) + 1
        for part in parts_of_lines(held, self.name, "skip", encrypts=self._encrypts):
            yield part.body

    async def _lines(self, snapshot: "SnapshotSet") -> AsyncGenerator[bytes, None]:
        async for checkpoint in checkpoints_of(snapshot, self.origin, self._codec):
            if is_encrypted(checkpoint.raw_data) and not self._keeps_keys:
                raise OperationError(
                    f"{checkpoint.id} is encrypted, and what is copied without its key can't be read. Nothing more was "
                    "sent. Set the key store and the wrapping key of both deployments (docs/encryption.md)"
                )
            self.checkpoints += 1
            if checkpoint.pinned:
                self._pinned.append(checkpoint.id)
            if checkpoint.id == self.last:
                yield line_of(checkpoint, self._with_origin(checkpoint))
                return
            yield line_of(checkpoint)

    def _with_origin(self, checkpoint: "Checkpoint") -> bytes:
        try:
            return metadata_json({**checkpoint.metadata, FORKED_FROM: checkpoint.id})
        except InvalidCommandError as error:
            raise OperationError(
                f"{checkpoint.id} has no room for {FORKED_FROM} in its metadata ({error.message}): fork at another "
                "checkpoint"
            ) from None
