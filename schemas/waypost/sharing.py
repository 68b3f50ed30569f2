"""One question for all who ask at the same time."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")


class SharedRequests(Generic[_K, _V]):
    """Answers to the same kind of question, such as where a partition ends.

    ``ask`` answers several keys in one request. The request behind an answer always starts after the call that gets it,
    so a call never joins a request that is under way.
    """

    def __init__(self, ask: Callable[[list[_K]], Awaitable[Mapping[_K, _V]]]) -> None:
        self._ask = ask
        self._waiting: dict[_K, asyncio.Future[_V]] = {}
        self._task: asyncio.Task[None] | None = None

    async def get(self, key: _K) -> _V:
        """Return the answer for a key. Raise what ``ask`` raises."""
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._waiting = {}
            self._task = loop.create_task(self._serve())
        if (answer := self._waiting.get(key)) is None:
            answer = self._waiting[key] = loop.create_future()
        return await asyncio.shield(answer)

    async def _serve(self) -> None:
        while self._waiting:
            asked, self._waiting = self._waiting, {}
            try:
                found = await self._ask(list(asked))
                for key, answer in asked.items():
                    answer.set_result(found[key])
            except BaseException as error:
                for answer in asked.values():
                    if not answer.done():
                        answer.set_exception(
                            error if isinstance(error, Exception) else RuntimeError("canceled")
                        )
                        answer.exception()  # the caller may have given up
                if not isinstance(error, Exception):
                    raise

    async def stop(self) -> None:
        """Stop asking."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})
