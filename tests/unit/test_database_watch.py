"""Which databases are told to answer: each by itself, and nothing where nothing is known."""

import asyncio
from collections.abc import Awaitable, Callable

from waypost_worker.telemetry.database_watch import watch_databases


async def told(
    check: Callable[[int], Awaitable[object]],
    unknown: Callable[[int], bool],
    enough: Callable[[dict[int, list[bool]]], bool],
    count: int = 1,
) -> dict[int, list[bool]]:
    """What is told of each until it is enough."""
    heard: dict[int, list[bool]] = {}
    done = asyncio.Event()

    def tell(number: int, well: bool) -> None:
        heard.setdefault(number, []).append(well)
        if enough(heard):
            done.set()

    watching = asyncio.create_task(watch_databases(count, check, unknown, tell, every=0.01, patience=0.05))
    await asyncio.wait_for(done.wait(), 30)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    return heard


def never(_: int) -> bool:
    return False


async def test_one_that_hangs_is_unreachable_and_holds_up_no_other() -> None:
    async def check(number: int) -> None:
        if number == 1:
            await asyncio.Event().wait()

    heard = await told(check, never, lambda heard: len(heard.get(0, ())) > 3 and len(heard.get(1, ())) > 1, 2)
    assert set(heard[0]) == {True}
    assert set(heard[1]) == {False}


async def test_one_that_comes_back_is_well_again() -> None:
    outcomes = [OSError("refused"), OSError("refused"), None, None, OSError("refused"), None]

    async def check(_: int) -> None:
        if (error := outcomes.pop(0)) is not None:
            raise error

    heard = await told(check, never, lambda heard: len(heard[0]) == 6)
    assert heard[0] == [False, False, True, True, False, True]


async def test_unknown_details_are_left_out() -> None:
    asked = 0

    async def check(_: int) -> None:
        nonlocal asked
        asked += 1
        if asked < 4:
            raise TimeoutError

    heard = await told(check, lambda _: True, lambda heard: len(heard[0]) == 2)
    assert (heard[0], asked) == ([True, True], 5)
