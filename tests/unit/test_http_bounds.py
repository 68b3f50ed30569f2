"""Whoever can reach the HTTP port: half-sent requests end, connections are counted, no header is an error."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter
from tests.support.timeouts import PATIENCE

from waypost_worker.telemetry.health import Health
from waypost_worker.web.bounded import HEAD_BYTES, bounded_protocol
from waypost_worker.web.probes import metrics_only
from waypost_worker.web.server import serving

HALF = {
    "nothing": b"",
    "half a line": b"GET /met",
    "no end of the headers": b"GET /metrics HTTP/1.1\r\nHost: a\r\nX-A: b\r\n",
    "a body that never comes": b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nx",
    "a second request in halves": b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\nGET /",
}
ANSWERED = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    Counter("waypost_commands", "By type.", ["type"], registry=made).labels('a"b\n\u2028').inc()
    return made


@asynccontextmanager
async def served(most: int = 64, seconds: float = 10.0) -> AsyncIterator[int]:
    app = metrics_only(registry())
    protocol = bounded_protocol(most, seconds)
    async with serving(app, "127.0.0.1", 0, lambda *_: None, protocol) as port:
        yield port


async def answer(port: int, sent: bytes = ANSWERED) -> bytes:
    reading, writing = await asyncio.open_connection("127.0.0.1", port)
    try:
        writing.write(sent)
        async with asyncio.timeout(PATIENCE):
            return await reading.read()
    finally:
        writing.close()


@pytest.mark.parametrize("half", HALF.values(), ids=HALF)
async def test_a_half_sent_request_ends(half: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waypost_worker.web.bounded.KEEP_ALIVE_SECONDS", 0.1)
    async with served(seconds=0.2) as port:
        reading, writing = await asyncio.open_connection("127.0.0.1", port)
        writing.write(half)
        async with asyncio.timeout(PATIENCE):
            with suppress(ConnectionError):  # a reset is an end, too
                await reading.read()
        writing.close()
        assert (await answer(port)).startswith(b"HTTP/1.1 200")


async def test_a_client_that_does_not_read_loses_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waypost_worker.web.bounded.KEEP_ALIVE_SECONDS", 0.1)
    async with served(seconds=0.2) as port:
        _, writing = await asyncio.open_connection("127.0.0.1", port)
        one = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"

        async def ask_for_ever() -> None:
            while True:
                writing.write(one * 1000)
                await writing.drain()

        with pytest.raises(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                await ask_for_ever()


async def test_a_flood_of_connections_keeps_no_probe_out() -> None:
    async with served(most=8) as port:
        flood = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
        for _, writing in flood:
            writing.write(b"GET /")
        assert (await answer(port)).startswith(b"HTTP/1.1 200")
        ended = 0
        async with asyncio.timeout(PATIENCE):
            for reading, _ in flood[:32]:
                with suppress(ConnectionError):
                    assert await reading.read() == b""
                ended += 1
        assert ended == 32
        for _, writing in flood:
            writing.close()


async def test_a_head_is_bounded_and_no_request_fills_the_log(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("uvicorn.error").setLevel(logging.NOTSET)
    async with served() as port:
        long = b"GET /metrics HTTP/1.1\r\nHost: a\r\nX-A: " + b"x" * (HEAD_BYTES + 100_000)
        with suppress(ConnectionError):
            assert (await answer(port, long)).startswith(b"HTTP/1.1 4")
        assert (await answer(port, b"\x16\x03\x01 no HTTP\r\n\r\n")).startswith(b"HTTP/1.1 400")
        upgrade = (
            b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n"
        )
        assert (await answer(port, upgrade)).startswith(b"HTTP/1.1 200")
    assert [record.getMessage() for record in caplog.records if record.name.startswith("uvicorn")] == []


async def asked(headers: list[tuple[bytes, bytes]], path: str = "/metrics", method: str = "GET") -> int:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(errors="surrogatepass"),
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "scheme": "http",
        "server": ("127.0.0.1", 1),
        "client": ("127.0.0.1", 2),
    }
    await metrics_only(registry())(scope, receive, send)
    return int(sent[0]["status"])


TYPES = st.sampled_from(["application/openmetrics-text", "text/plain", "*/*", "text/html", ""])
PARAMETERS = st.builds(
    lambda name, value: f";{name}={value}",
    st.sampled_from(["version", "q", "escaping", "charset", " version ", "VERSION"]),
    st.one_of(
        st.sampled_from(
            ["1.0.0", "0.0.4", "1", "1.", "..", "-1", "9" * 40, "1.0.0.0", "a", '"1.0.0"', "allow-utf-8"]
        ),
        st.text(st.characters(max_codepoint=255), max_size=12),
    ),
)
ACCEPTS = st.lists(
    st.builds(lambda kind, given: kind + "".join(given), TYPES, st.lists(PARAMETERS, max_size=4)), max_size=4
).map(lambda all_: ",".join(all_).encode("latin-1"))


@settings(max_examples=300, deadline=None)
@given(st.one_of(ACCEPTS, st.binary(max_size=60)))
@example(b"application/openmetrics-text;version=a")
@example(b"application/openmetrics-text;version=1.0.0;escaping=nonsense")
@example(b"text/plain;version=1.x")
@example(b"text/plain;version=")
def test_no_accept_header_is_an_error(accept: bytes) -> None:
    assert asyncio.run(asked([(b"accept", accept)])) == 200


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.binary(max_size=20).map(bytes.lower), st.binary(max_size=40)), max_size=5),
    st.text(max_size=20).map(lambda text: "/" + text),
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "OPTIONS", "\u00ff"]),
)
def test_no_request_is_an_error(headers: list[tuple[bytes, bytes]], path: str, method: str) -> None:
    assert asyncio.run(asked(headers, path, method)) < 500


async def test_probes_that_come_together_ask_the_database_once() -> None:
    asks = 0
    go = asyncio.Event()

    async def check() -> None:
        nonlocal asks
        asks += 1
        await go.wait()

    health = Health(60)
    health.stage = "running"
    health.check_store = check
    probes = [asyncio.create_task(health.ready()) for _ in range(50)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    go.set()
    assert {report.checks["postgres"] for report in await asyncio.gather(*probes)} == {"ok"}
    assert asks == 1
    assert (await health.ready()).checks["postgres"] == "ok"
    assert asks == 2


async def test_an_answer_does_not_wait_for_the_acknowledgment_of_its_head() -> None:
    connected: list[int] = []

    class Protocol(bounded_protocol()):  # type: ignore[misc]
        def connection_made(self, transport: asyncio.Transport) -> None:
            accepted = transport.get_extra_info("socket")
            connected.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            super().connection_made(transport)

    async with serving(metrics_only(registry()), "127.0.0.1", 0, lambda *_: None, Protocol) as port:
        assert b"200 OK" in await answer(port)
    assert [bool(one) for one in connected] == [True]
