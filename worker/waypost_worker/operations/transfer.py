"""Commands that belong together, sent so that the whole can be started again after any interruption.

Each command's id follows from the transfer's id, its place and its content. A command that was applied earlier is then
a duplicate, which changes nothing as long as the session remembers it: at least its last 256 commands.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from waypost.publisher.client import Publisher
from waypost.publisher.waiter import CommandResult
from waypost_worker.operations.errors import OperationError
from waypost_worker.operations.results import short
from waypost_worker.operations.sending import Prepared, result_of

_SESSIONS_AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a transfer. ``may_fail``: a refusal is counted and does not end the transfer.

    ``what`` names it in messages, ``where`` says which of the given things are in it.
    """

    session: str
    type: str
    body: bytes
    what: str
    where: str = ""
    may_fail: bool = False


@dataclass(slots=True)
class Totals:
    """A summary of the results. ``repeated`` commands were applied by an earlier run of the same transfer."""

    imported: int = 0
    replaced: int = 0
    skipped: int = 0
    removed: int = 0
    repeated: int = 0
    sessions: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)

    def take(self, step: Step, result: CommandResult) -> None:
        """Count one result."""
        self.sessions.add(step.session)
        match short(result.type):
            case "duplicate":
                self.repeated += 1
            case "rejected":
                self.refused.append(f"{step.what}: {result.body['code']}: {result.body['message']}")
            case _:
                self.imported += result.body.get("imported", 0)
                self.replaced += result.body.get("replaced", 0)
                self.skipped += result.body.get("skipped", 0)
                self.removed += len(result.body.get("removed", ()))

    def shown(self) -> dict[str, Any]:
        """For output; ``removed`` and ``repeated`` only where there were any."""
        always = {"imported": self.imported, "replaced": self.replaced, "skipped": self.skipped}
        also = {"removed": self.removed, "repeated": self.repeated}
        return always | {name: count for name, count in also.items() if count}


class Transfer:
    """Sends steps: those of one session in sequence, those of different sessions in parallel."""

    def __init__(self, transfer_id: str, timeout: float, done: Callable[[], None] = lambda: None) -> None:
        """``done`` is called for each command that has its result; ``timeout`` is for one result, in seconds."""
        self.totals = Totals()
        self._done = done
        self._id = transfer_id
        self._timeout = timeout
        self._failed: Exception | None = None
        self._numbers: Counter[str] = Counter()
        self._room = asyncio.Semaphore(_SESSIONS_AT_ONCE)
        self._last: dict[str, asyncio.Task[None]] = {}

    async def run(self, publisher: Publisher, steps: AsyncIterator[Step]) -> Totals:
        """Send all; OperationError at the first refusal, once what was under way has its result."""
        try:
            async for step in steps:
                await self._room.acquire()
                if self._failed is not None:
                    break
                before = self._last.get(step.session)
                self._last[step.session] = asyncio.create_task(self._send(publisher, step, before))
        finally:
            # Commands that were sent will be applied, so wait for their outcome even if the rest failed.
            await asyncio.gather(*self._last.values(), return_exceptions=True)
        if self._failed is not None:
            raise self._failed
        return self.totals

    async def _send(self, publisher: Publisher, step: Step, before: asyncio.Task[None] | None) -> None:
        try:
            if before is not None:
                await before
            if self._failed is None:
                self._take(step, await self._result(publisher, step))
                self._done()
        except Exception as error:
            self._failed = self._failed or error  # raised once all is quiet
        finally:
            if self._last.get(step.session) is asyncio.current_task():
                del self._last[step.session]
            self._room.release()

    async def _result(self, publisher: Publisher, step: Step) -> CommandResult:
        identifier = self._command_id(step)
        command = Prepared(step.session, step.type, step.body)
        return await result_of(publisher, command, self._timeout, identifier)

    def _take(self, step: Step, result: CommandResult) -> None:
        self.totals.take(step, result)
        if short(result.type) == "rejected" and not step.may_fail:
            raise OperationError(
                f"{step.what} was refused, {result.body['code']}: {result.body['message']}. It is for the session "
                f"{step.session!r}{step.where and f', {step.where}'}; earlier parts are applied, and later "
                "ones were not sent"
            )

    def _command_id(self, step: Step) -> str:
        self._numbers[step.session] += 1
        hashed = hashlib.blake2b(digest_size=16)
        number = str(self._numbers[step.session]).encode()
        for part in (self._id.encode(), step.session.encode(), number, step.type.encode(), step.body):
            hashed.update(b"%d:" % len(part) + part)
        return hashed.hexdigest()
