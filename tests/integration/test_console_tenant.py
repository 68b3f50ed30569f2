"""A console of one tenant: no page, form, stream or address of it shows or changes a session of another."""

from collections.abc import Iterator

import httpx
import pytest
from tests.support.cli import CommandLine, Started
from tests.support.console import Console, fields_of, form_token_of, running_console
from tests.support.processes import wait_until
from tests.support.timeouts import PATIENCE
from tests.support.worker_deployment import commands_in, create, own, own_worker

__all__ = ["own", "own_worker"]
pytestmark = pytest.mark.servers

OTHERS = ("acme2/secret-1", "Acme/secret-2", "acme", "/acme", "secret-3")


@pytest.fixture
def filled(own: CommandLine, own_worker: Started) -> CommandLine:
    for session in ("acme/own", *OTHERS):
        create(own, session, "one", "two")
        # Rejected, and kept with its session.
        own.run(
            "publish", session, "--type", "pin", "--body", f'{{"checkpoint_id": "{session}:99"}}', "--wait"
        )
    return own


@pytest.fixture
def console(filled: CommandLine) -> Iterator[Console]:
    with running_console(filled, {"WAYPOST_CONSOLE_TENANT": "acme"}) as running:
        yield running


@pytest.fixture
def client(console: Console) -> Iterator[httpx.Client]:
    with console.client() as made:
        yield made


def address(session: str) -> str:
    return session.replace("/", "%2F")


def mentions_others(text: str) -> bool:
    return "secret" in text or "acme2" in text or "Acme" in text


def rejected_places(line: CommandLine, session: str) -> list[str]:
    return [row["place"] for row in line.run("rejected", "list", "--session", session, "-o", "json").json]


def shows_own(page: httpx.Response) -> bool:
    return "acme/own" in page.text.replace("%2F", "/")


def test_lists_and_pages_show_the_tenant_only(client: httpx.Client, filled: CommandLine) -> None:
    # The tail begins a minute before the console, and has what its subscriber has read: on a busy machine
    # neither need hold anything of the fixture.
    for session in (*OTHERS, "acme/own"):
        create(filled, session, "while the console runs")
    wait_until(lambda: shows_own(client.get("/tail")), PATIENCE)
    for path in (
        "/",
        "/?rejected=1",
        "/?q=a",
        "/?q=name:one",
        "/rejected",
        "/tail",
        "/api/v1/sessions",
        "/api/v1/rejected",
    ):
        page = client.get(path)
        assert page.status_code == 200, path
        assert shows_own(page), path
        assert not mentions_others(page.text), path
    assert "tenant acme" in client.get("/").text
    for query in ("acme2", "secret", "Acme/", "/acme"):
        assert not mentions_others(client.get("/", params={"q": query}).text.replace(f'value="{query}"', ""))
        assert client.get("/api/v1/sessions", params={"q": query}).json()["rows"] == []
    for path in ("/sessions/acme%2Fown", "/sessions/acme%2Fown/1", "/sessions/acme%2Fown/1/log"):
        assert client.get(path).status_code == 200, path


def test_a_session_of_another_tenant_does_not_exist(client: httpx.Client, filled: CommandLine) -> None:
    before = commands_in(filled)
    token = form_token_of(client.get("/").text)
    for session in OTHERS:
        base = f"/sessions/{address(session)}"
        for path in (
            base,
            f"{base}/1",
            f"{base}/1/raw",
            f"{base}/1/log",
            f"{base}/fork",
            f"{base}/clear",
            f"{base}/policy",
            f"{base}/rollback?checkpoint=1",
            f"{base}/events",
            f"{base}/diff?a=1&b=2",
            f"/api/v1{base}",
            f"/api/v1{base}/checkpoints/1",
            f"/api/v1{base}/clear",
            f"/sessions/acme%2Fown/diff?a=1&b={address(session)}:1",
            f"/sessions/acme%2Fown?a=1&b={address(session)}:1",
            f"/api/v1/diff?a=acme%2Fown:1&b={address(session)}:1",
        ):
            assert client.get(path).status_code == 404, path
        for path in (f"{base}/clear", f"{base}/fork", f"{base}/verify"):
            answer = client.post(path, data={"form_token": token, "name": "acme/x", "checkpoint": "1"})
            assert answer.status_code == 404, path
        assert client.post(f"/api/v1{base}/clear", json={"position": 1}).status_code == 404
    assert commands_in(filled) == before


def test_what_concerns_all_sessions_is_missing(client: httpx.Client) -> None:
    token = form_token_of(client.get("/").text)
    for path in (
        "/health",
        "/api/v1/health",
        "/sessions/acme%2Fown/verify",
        "/rejected/purge",
        "/rejected/purge?code=c",
    ):
        answer = client.get(path)
        assert answer.status_code == 404, path
        assert "A console of one tenant has no such page" in answer.text
    for path in ("/sessions/acme%2Fown/verify", "/rejected/purge"):
        assert (
            client.post(path, data={"form_token": token, "until": "2030-01-01T00:00:00Z"}).status_code == 404
        )
    for path in ("/", "/rejected", "/sessions/acme%2Fown"):
        page = client.get(path).text
        assert "/health" not in page
        assert "/verify" not in page
        assert "/rejected/purge" not in page


def test_rejected_commands_of_others_are_neither_shown_nor_sent_again_nor_removed(
    client: httpx.Client, filled: CommandLine
) -> None:
    token = form_token_of(client.get("/").text)
    before = commands_in(filled)
    for session in OTHERS:
        (place,) = rejected_places(filled, session)
        for path in (f"/rejected/{place}", f"/rejected/{place}/raw"):
            assert client.get(path).status_code == 404
        for path in (f"/rejected/{place}/retry", f"/rejected/{place}/purge"):
            assert client.post(path, data={"form_token": token}).status_code == 404
        assert rejected_places(filled, session) == [place]
        assert client.get("/api/v1/rejected", params={"session": session}).json()["rejected"] == []
    assert commands_in(filled) == before
    (own_place,) = rejected_places(filled, "acme/own")
    assert client.get(f"/rejected/{own_place}").status_code == 200
    assert client.post(f"/rejected/{own_place}/purge", data={"form_token": token}).status_code == 303
    assert rejected_places(filled, "acme/own") == []


def test_a_fork_stays_in_the_tenant(client: httpx.Client, filled: CommandLine) -> None:
    path = "/sessions/acme%2Fown/fork"
    page = client.get(path, params={"checkpoint": "1"}).text
    before = commands_in(filled)
    for name in ("acme2/fork", "fork", "/acme"):
        answer = client.post(path, data={**fields_of(page), "name": name})
        assert answer.status_code == 403, name
        assert "does not begin with &#39;acme/&#39;" in answer.text
    assert commands_in(filled) == before
    made = client.post(path, data={**fields_of(page), "name": "acme/fork"}, follow_redirects=True)
    assert "1 checkpoint of acme/own" in made.text


def test_the_stream_shows_the_tenants_results_only(client: httpx.Client, filled: CommandLine) -> None:
    shown: list[str] = []
    with client.stream("GET", "/tail/events", timeout=PATIENCE) as stream:
        lines = stream.iter_lines()
        for session in (*OTHERS, "acme/own"):
            create(filled, session, "streamed")
        for line in lines:
            shown.append(line)
            if "streamed" in line:
                break
    assert "acme" in "".join(shown)
    assert not mentions_others("".join(shown))


def test_a_tenant_that_cannot_be_starts_no_console(own: CommandLine) -> None:
    done = CommandLine(own.directory, {**own.settings, "WAYPOST_CONSOLE_TENANT": "acme/"}).run("console")
    assert (done.code, done.out) == (2, "")
    assert "console_tenant: The tenant 'acme/' contains '/'" in done.error
