"""A restore into two databases of which the second does not commit, or does not say so: a second start ends well."""

from contextlib import AsyncExitStack
from typing import Literal
from urllib.parse import urlsplit

import pytest
from tests.faults.proxy import Proxy
from tests.integration.test_shards_commands import empty, here, line, on
from tests.support.cli import CommandLine
from tests.support.deployment import Deployment
from tests.support.recovery import run, worked
from tests.support.sharded import rows, state

__all__ = ["empty", "here", "line"]

How = Literal["before its commit", "after its commit"]


class Commits:
    """A wire to Postgres that sees the commit of a transaction that copied rows, and acts on the reply to it."""

    def __init__(self, restores: "Restores", shard: int) -> None:
        self._restores = restores
        self._shard = shard
        self._copied = self._committing = False

    def sent(self, data: bytes) -> None:
        """See Wire."""
        self._copied = self._copied or b"COPY " in data
        self._committing = self._copied and data.startswith(b"Q") and data.endswith(b"COMMIT;\0")

    def answered(self, data: bytes) -> bytes | None:
        """See Wire."""
        if not self._committing:
            return data
        self._committing = False
        return data if self._restores.committed(self._shard) else None


class Restores:
    """Two databases behind proxies; the connection to the second is cut before its commit or with the reply to it."""

    def __init__(self, dsns: list[str], how: How) -> None:
        self._how = how
        self._addresses = [urlsplit(dsn) for dsn in dsns]
        self.struck = False
        self.proxies = [
            Proxy(address.port or 0, lambda shard=shard: Commits(self, shard))  # type: ignore[misc]
            for shard, address in enumerate(self._addresses)
        ]

    def committed(self, shard: int) -> bool:
        """A database committed; whether the client gets to know."""
        if shard == 0 and self._how == "before its commit":
            self.struck = True
            self.proxies[1].cut()
        if shard == 1 and self._how == "after its commit":
            self.struck = True
            return False
        return True

    def dsns(self) -> list[str]:
        """The databases as they are reached through the proxies."""
        return [
            address._replace(netloc=f"{address.username}:{address.password}@127.0.0.1:{proxy.port}").geturl()
            for address, proxy in zip(self._addresses, self.proxies, strict=True)
        ]


@pytest.mark.parametrize("how", ["before its commit", "after its commit"])
async def test_restored_state_is_reported_and_a_second_start_ends_well(
    here: Deployment, line: CommandLine, empty: list[str], how: How
) -> None:
    await worked(here, count=100)
    assert (await run(line, "snapshot", "create")).code == 0
    restores = Restores(empty, how)
    async with AsyncExitStack() as stack:
        for proxy in restores.proxies:
            await stack.enter_async_context(proxy)
        failed = await run(on(line, restores.dsns()), "snapshot", "restore")
    assert restores.struck
    assert (failed.code, failed.out) == (1, "")
    assert "Traceback" not in failed.err
    assert "restored: shard 0; not known, as it did not answer: shard 1" in failed.err
    first, second = await state(empty)
    assert first["checkpoints"], "the first is restored"
    assert bool(second) == (how == "after its commit"), (
        "the second is as the server knows, all of it or nothing"
    )

    refused = await run(on(line, empty), "snapshot", "restore")
    assert refused.code == 1
    assert "shard 0 of 2" in refused.err
    assert await state(empty) == [first, second]

    # As the message says.
    assert (
        "In shard 0 and shard 1 run 'drop schema if exists waypost cascade' in psql, and restore again"
        in failed.err
    )
    for dsn in empty:
        await rows(dsn, "drop schema if exists waypost cascade")
    done = await run(on(line, empty), "snapshot", "restore", "-o", "json")
    assert done.code == 0, done.err
    assert (await run(on(line, empty), "verify", "-o", "json")).json["equal"] is True
