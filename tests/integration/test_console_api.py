"""The console without a browser: what does not exist or is unreachable, the API, and large sessions."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.cli import CommandLine, Started
from tests.support.console import Console, fields_of, running_console
from tests.support.worker_deployment import (
    commands_in,
    create,
    line,
    own,
    own_worker,
    session,
    shared,
)

__all__ = ["line", "own", "own_worker", "session", "shared"]

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def console(shared: CommandLine) -> Iterator[Console]:
    with running_console(shared) as running:
        yield running


@pytest.fixture(scope="module")
def client(console: Console) -> Iterator[httpx.Client]:
    with console.client() as made:
        yield made


def confirm(client: httpx.Client, path: str, page: str, **changed: str) -> httpx.Response:
    return client.post(path, data={**fields_of(page), **changed}, follow_redirects=True)


# What does not exist, or is away.


@pytest.mark.parametrize(
    "path",
    [
        "/sessions/nosuch",
        "/sessions/%ff",
        "/sessions/a%00b",
        "/sessions/" + "x" * 201,
        "/sessions/nosuch/1",
        "/sessions/nosuch/99999999999999999999999",
        "/sessions/nosuch/%C2%B2",
        "/sessions/nosuch/policy",
        "/rejected/0/999999",
        "/rejected/99999999999/1",
        "/rejected/x/y",
        "/static/../app.py",
        "/static/nosuch",
        "/%2e%2e/etc/passwd",
        "/sessions/s/done/nosuch",
    ],
)
def test_missing_things_have_an_error_page(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (400, 404), answer.text
    assert '<div class="notice danger">' in answer.text


def test_a_cursor_from_elsewhere_does_not_crash_a_page(client: httpx.Client) -> None:
    assert client.get("/", params={"after": "nonsense"}).status_code == 400
    assert client.get("/", params={"q": "x" * 5000}).status_code == 200


def test_without_kafka_sessions_are_shown_and_nothing_is_published_later(
    own: CommandLine, own_worker: Started, session: str
) -> None:
    create(own, session, "a", "b")
    away = {"WAYPOST_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    with running_console(own, away) as console, console.client() as client:
        assert "Kafka is not reachable" in client.get("/").text
        path = f"/sessions/{session}/rollback"
        page = client.get(path, params={"checkpoint": "1", "discard_later": "1"}).text
        answer = confirm(client, path, page)
        assert answer.status_code == 503
        assert "Nothing was published" in answer.text


def test_without_postgres_pages_say_what_to_do(own: CommandLine) -> None:
    away = {"WAYPOST_POSTGRES_DSN": "postgresql://postgres@127.0.0.1:1/waypost"}
    with running_console(own, away) as console, console.client() as client:
        for path in ("/", "/sessions/s", "/rejected", "/health"):
            answer = client.get(path)
            assert answer.status_code == 503, path
            assert "Postgres is not reachable" in answer.text
        assert client.get("/tail").status_code == 200
        assert client.get("/api/v1/sessions").headers["content-type"] == "application/problem+json"


def test_without_a_schema_pages_say_what_to_do(own: CommandLine, tmp_path: Path) -> None:
    with running_console(own, {"WAYPOST_POSTGRES_SCHEMA": "nosuch"}) as console, console.client() as client:
        answer = client.get("/")
        assert answer.status_code == 500
        assert "waypost migrate" in answer.text


def test_without_a_worker_a_change_is_not_published_blindly(own: CommandLine, session: str) -> None:
    worker = own.start("worker")
    worker.until("worker_ready")
    create(own, session, "a", "b")
    worker.stop()
    assert own.run("publish", session, "c").code == 0
    with running_console(own) as console, console.client() as client:
        assert "No worker is running, and commands wait (1)" in client.get("/").text
        path = f"/sessions/{session}/clear"
        before = commands_in(own)
        answer = confirm(client, path, client.get(path).text)
        assert answer.status_code == 503
        assert "Start a worker" in answer.text
        assert commands_in(own) == before


# The API.


def test_the_api_says_what_pages_say_and_is_described(
    client: httpx.Client, line: CommandLine, session: str
) -> None:
    create(line, session, "a", "b")
    described = client.get("/api/v1/openapi.json").json()
    assert described["openapi"] == "3.1.0"
    known = {"session": session, "number": "1", "kind": "rollback"}
    for path, methods in described["paths"].items():
        asked = client.get(
            path.format(**known), params={"checkpoint": "1", "a": f"{session}:1", "b": f"{session}:2"}
        )
        assert asked.status_code == 200, (path, asked.text)
        assert set(methods) <= {"get", "post"}
    listed = client.get("/api/v1/sessions", params={"q": session}).json()
    assert [row["session_id"] for row in listed["rows"]] == [session]
    assert client.get(f"/api/v1/sessions/{session}/checkpoints/1").json()["data"] == {"at": "a"}
    found = client.get("/api/v1/diff", params={"a": f"{session}:1", "b": f"{session}:2"}).json()
    assert [change["path"] for change in found["changes"]] == ["/data/at", "/name"]


def test_a_program_changes_a_session_by_the_same_rules(
    client: httpx.Client, line: CommandLine, session: str
) -> None:
    create(line, session, "a", "b")
    path = f"/api/v1/sessions/{session}/rollback"
    seen = client.get(path, params={"checkpoint": "1", "discard_later": "1"}).json()
    assert seen["removed"] == 1
    asked = {"position": seen["position"], "checkpoint": 1, "discard_later": True}
    assert client.post(path, json={**asked, "position": seen["position"] - 1}).status_code == 409
    assert (
        client.post(path, content=json.dumps(asked), headers={"content-type": "text/plain"}).status_code
        == 415
    )
    assert client.post(path, json=[]).status_code == 400
    done = client.post(path, json=asked)
    assert done.json()["result"] == "rolled_back"
    assert done.json()["removed"] == [f"{session}:2"]
    moved = client.post(path, json=asked)
    assert (moved.status_code, moved.json()["moved"]) == (409, True)


def test_a_stream_resumes_where_a_browser_stopped(
    client: httpx.Client, line: CommandLine, session: str
) -> None:
    create(line, session, "first", "second")
    params = {"session": session}

    def rows(count: int, headers: dict[str, str] | None = None) -> tuple[list[str], str]:
        found, last = [], ""
        with client.stream("GET", "/tail/events", params=params, headers=headers) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            create(line, session, "more")
            for text in stream.iter_lines():
                if text.startswith("id: "):
                    last = text.removeprefix("id: ")
                if text.startswith("data: <td>") and text.endswith("</td>"):
                    found.append(text)
                if text == "" and sum("more" in row for row in found) >= count:
                    return found, last
        raise AssertionError("the stream ended")

    _, last = rows(1)
    create(line, session, "while_away")
    again, _ = rows(1, {"last-event-id": last})
    assert any("while_away" in row for row in again)
    assert not any("second" in row for row in again)


# Size and time.


def test_the_first_page_with_all_that_it_needs_is_small(client: httpx.Client) -> None:
    parts = [client.get(path).content for path in ("/", "/static/waypost.css", "/static/waypost.js")]
    assert sum(map(len, parts)) < 60_000


def test_ten_thousand_checkpoints_are_a_page_like_any_other(
    client: httpx.Client, line: CommandLine, session: str, tmp_path: Path
) -> None:
    policy = {"max_checkpoints": 10_000, "compress_after": 10_000, "keep_recent": 10_000}
    line.run("publish", session, "--type", "configure", "--body", json.dumps(policy), "--wait")
    many = [
        {
            "id": f"{session}:{n}",
            "name": f"step_{n % 7}",
            "timestamp": f"2026-11-30T{n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}Z",
            "data": {"n": n},
        }
        for n in range(1, 10_001)
    ]
    file = tmp_path / "many.json"
    file.write_text(json.dumps(many))
    assert line.run("session", "import", session, str(file)).code == 0
    page = client.get(f"/sessions/{session}")
    assert page.status_code == 200
    assert "10,000 of 10,000 kept" in page.text
    assert len(page.content) < 250_000
    print(f"10,000 checkpoints: {len(page.content):,} bytes in {page.elapsed.total_seconds():.3f} s")
    older = client.get(f"/sessions/{session}", params={"before": "51"}).text
    assert 'aria-label="A is 50"' in older
    assert 'aria-label="A is 51"' not in older
