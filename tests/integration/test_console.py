"""The console without a browser: who is answered, what is published and what is not, and what the API says."""

import asyncio
import json
from collections.abc import Iterator
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
from opentelemetry import trace as trace_api
from opentelemetry.sdk.trace import TracerProvider
from tests.support.cli import CommandLine, Started
from tests.support.console import Console, fields_of, form_token_of, running_console
from tests.support.timeouts import PATIENCE
from tests.support.worker_deployment import (
    commands_in,
    create,
    line,
    own,
    own_worker,
    session,
    shared,
)

import waypost

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


# Who is answered.


def test_nobody_is_let_in_without_the_link_and_by_the_same_link_only_once(
    console: Console, client: object
) -> None:
    for path in ("/", "/sessions/s", "/tail", "/tail/events", "/health", "/help", "/api/v1/sessions"):
        answer = httpx.get(f"{console.address}{path}")
        assert answer.status_code == 401, path
        assert "newest link that the console printed" in answer.text
    used = httpx.get(console.link)
    assert used.status_code == 401
    assert "works once" in used.text
    later = console.process.until("The link was used. For another browser: ").split()[-1]
    with console.client(later) as other:
        assert other.get("/").status_code == 200


def test_a_browser_that_fetches_ahead_does_not_use_the_link_up(own: CommandLine) -> None:
    with running_console(own) as console:
        ahead = httpx.get(console.link, headers={"sec-purpose": "prefetch;prerender"})
        assert (ahead.status_code, "set-cookie" in ahead.headers) == (503, False)
        assert httpx.head(console.link).status_code == 503
        with console.client() as client:
            assert client.get("/").status_code == 200


def test_another_name_for_this_machine_is_not_answered(client: httpx.Client) -> None:
    for host in ("evil.example", "localhost", "localhost:1", ""):
        answer = client.get("/", headers={"host": host})
        assert answer.status_code == 421, host
        assert "sessions" not in answer.text.lower().replace("/sessions", "")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_form_of_another_site_publishes_nothing(
    client: httpx.Client, line: CommandLine, session: str, headers: dict[str, str]
) -> None:
    create(line, session, "a", "b")
    path = f"/sessions/{session}/rollback"
    page = client.get(path, params={"checkpoint": "1", "discard_later": "1"}).text
    before = commands_in(line)
    answer = client.post(path, data=fields_of(page), headers=headers)
    assert answer.status_code == 403
    assert commands_in(line) == before


def test_a_form_without_its_token_publishes_nothing(
    client: httpx.Client, line: CommandLine, session: str
) -> None:
    create(line, session, "a", "b")
    path = f"/sessions/{session}/delete"
    page = client.get(path, params={"checkpoint": "1"}).text
    before = commands_in(line)
    for token in ("", "0" * 32):
        assert confirm(client, path, page, form_token=token).status_code == 403
    assert client.post(path, content=b"x" * 300_000).status_code == 413
    assert client.post(path, content=b"\xff\xfe").status_code == 400
    assert commands_in(line) == before


def test_every_answer_carries_the_policy_and_is_not_kept(client: httpx.Client) -> None:
    for path in (
        "/",
        "/nosuch",
        "/sessions/nosuch",
        "/static/waypost.css",
        "/api/v1/health",
        "/login?token=x",
    ):
        answer = client.get(path)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        if not path.startswith("/static"):
            assert answer.headers["cache-control"] == "no-store"


def test_the_cookie_is_for_this_console_alone(own: CommandLine) -> None:
    with running_console(own) as console:
        cookie = httpx.get(console.link).headers["set-cookie"]
        port = console.address.rpartition(":")[2]
        assert cookie.startswith(f"waypost_console_{port}=")
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))


def test_after_logging_out_a_browser_is_nobody(own: CommandLine) -> None:
    with running_console(own) as console, console.client() as client:
        token = form_token_of(client.get("/help").text)
        assert client.post("/logout", data={"form_token": token}).status_code == 401
        assert client.get("/").status_code == 401


TOKEN = {"WAYPOST_CONSOLE_AUTH": "token", "WAYPOST_CONSOLE_TOKEN": "a-shared-token-1234"}


def test_a_token_lets_people_and_programs_in(own: CommandLine) -> None:
    everywhere = {"WAYPOST_CONSOLE_HOST": "0.0.0.0", "WAYPOST_CONSOLE_HOSTS": "console.example.org"}
    with running_console(own, {**TOKEN, **everywhere}) as console:
        assert console.address == "http://console.example.org"
    with running_console(own, TOKEN) as console:
        with httpx.Client(base_url=console.address, headers={"origin": console.address}) as people:
            page = people.get("/login").text
            wrong = people.post("/login", data={"form_token": form_token_of(page), "token": "wrong"})
            assert (wrong.status_code, people.get("/").status_code) == (401, 401)
            right = people.post(
                "/login", data={"form_token": form_token_of(page), "token": "a-shared-token-1234"}
            )
            assert "You are in" in right.text
            assert people.get("/").status_code == 200
        for token, status in (("a-shared-token-1234", 200), ("a-shared-token-123", 401), ("x", 401)):
            asked = httpx.get(
                f"{console.address}/api/v1/sessions", headers={"authorization": f"Bearer {token}"}
            )
            assert asked.status_code == status


def test_an_observer_sees_no_data_and_changes_nothing(shared: CommandLine, session: str) -> None:
    create(shared, session, "secret_name_is_shown")
    with running_console(shared, {"WAYPOST_CONSOLE_ROLE": "observer"}) as console, console.client() as client:
        assert "secret_name_is_shown" in client.get(f"/sessions/{session}").text
        for path in (
            "1",
            "1/raw",
            "1/log",
            "verify",
            "diff?a=1&b=1",
            "rollback?checkpoint=1",
            "fork",
            "policy",
        ):
            assert client.get(f"/sessions/{session}/{path}").status_code == 403, path
        assert client.get("/rejected").status_code == 403
        assert client.get("/?q=model:small").status_code == 403
        assert client.get(f"/api/v1/sessions/{session}/checkpoints/1").status_code == 403


def test_an_erased_session_is_shown_as_such_and_takes_no_more_commands(
    client: httpx.Client, line: CommandLine, session: str
) -> None:
    create(line, session, "a", "b")
    path = f"/sessions/{session}/clear"
    form = client.get(path).text
    assert line.run("erase", session, "--yes").code == 0
    page = client.get(f"/sessions/{session}").text
    assert "This session was erased" in page
    assert "Clear…" not in page
    assert ">erased</span>" in client.get("/", params={"q": session}).text
    # A form from before the erasure publishes nothing.
    before = commands_in(line)
    assert confirm(client, path, form).status_code == 409
    assert commands_in(line) == before


def test_a_proxy_says_who_it_is(own: CommandLine, own_worker: Started, session: str) -> None:
    settings = {
        "WAYPOST_CONSOLE_AUTH": "proxy",
        "WAYPOST_CONSOLE_PROXY_PEERS": "127.0.0.1",
        "WAYPOST_CONSOLE_PROXY_SECRET": "shared-by-proxy-and-console",
    }
    create(own, session, "a")
    with running_console(own, settings) as console:
        assert httpx.get(console.address).status_code == 401
        said = {"x-waypost-secret": "shared-by-proxy-and-console", "x-waypost-user": "ann@example.org"}
        # Most proxies say for whom they ask. That is not who asks.
        said["x-forwarded-for"] = "203.0.113.7"
        with httpx.Client(
            base_url=console.address, headers={**said, "origin": console.address}, timeout=PATIENCE
        ) as ann:
            assert "ann@example.org, operator" in ann.get("/").text
            assert httpx.get(console.address, headers={**said, "x-waypost-user": ""}).status_code == 401
            path = f"/sessions/{session}/pin"
            done = confirm(ann, path, ann.get(path, params={"checkpoint": "1"}).text)
            assert "Pinned" in done.text
            viewer = ann.get("/sessions/s/policy", headers={"x-waypost-role": "viewer"})
            assert viewer.status_code == 403
    # The log names who it was.
    tail = own.run("rejected", "list", "-o", "json")
    assert tail.json == []


# What is published.


def test_two_tabs_race_and_the_second_sees_a_new_preview(
    client: httpx.Client, line: CommandLine, session: str
) -> None:
    create(line, session, "a", "b", "c")
    path = f"/sessions/{session}/rollback"
    tabs = [client.get(path, params={"checkpoint": "1", "discard_later": "1"}).text for _ in range(2)]
    assert all("Removes 2 checkpoints (2 to 3). 1 is kept." in tab for tab in tabs)
    assert "2 checkpoints removed" in confirm(client, path, tabs[0]).text
    before = commands_in(line)
    second = confirm(client, path, tabs[1])
    assert second.status_code == 409
    assert "The session has changed, so nothing was published." in second.text
    assert "Removes nothing." in second.text
    assert commands_in(line) == before


def test_a_checkpoint_that_came_since_the_preview_is_not_discarded_unseen(
    client: httpx.Client, line: CommandLine, session: str
) -> None:
    create(line, session, "a", "b")
    path = f"/sessions/{session}/clear"
    page = client.get(path).text
    create(line, session, "came_since")
    answer = confirm(client, path, page)
    assert answer.status_code == 409
    assert "came_since" in answer.text
    done = confirm(client, path, answer.text)
    assert "3 dropped" in done.text
    assert "holds no checkpoints" in client.get(f"/sessions/{session}").text


def test_a_form_that_is_sent_twice_is_one_command(
    client: httpx.Client, line: CommandLine, session: str
) -> None:
    create(line, session, "a", "b")
    path = f"/sessions/{session}/rollback"
    page = client.get(path, params={"checkpoint": "1"}).text
    assert "Record it" in page
    confirm(client, path, page)
    before = commands_in(line)
    assert confirm(client, path, page).status_code == 409
    assert commands_in(line) == before


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("rollback", {"checkpoint": "x"}),
        ("policy", {"max_checkpoints": "1"}),
        ("pin", {}),
        ("delete", {"checkpoint": "1", "command_id": "not an id/"}),
    ],
)
def test_an_invalid_command_is_an_error_page(
    client: httpx.Client, line: CommandLine, session: str, kind: str, fields: dict[str, str]
) -> None:
    create(line, session, "a")
    page = client.get(f"/sessions/{session}/delete", params={"checkpoint": "1"}).text
    before = commands_in(line)
    answer = client.post(
        f"/sessions/{session}/{kind}", data={"form_token": form_token_of(page), "position": "0", **fields}
    )
    assert answer.status_code == 400
    assert "othing was published" in answer.text
    assert commands_in(line) == before


def test_a_fork_holds_what_came_before_and_says_where_it_is_from(
    client: httpx.Client, line: CommandLine, session: str
) -> None:
    create(line, session, "a", "b", "c")
    path = f"/sessions/{session}/fork"
    page = client.get(path, params={"checkpoint": "2"}).text
    assert "2 checkpoints, up to number 2" in page
    fields = {**fields_of(page), "name": f"{session}-fork"}
    made = client.post(path, data=fields)
    assert f"2 checkpoints of {session} are in {session}-fork" in made.text
    newest = client.get(f"/api/v1/sessions/{session}-fork/checkpoints/2").json()
    assert newest["metadata"] == {"forked_from": f"{session}:2"}
    create(line, f"{session}-taken", "x")
    taken = client.post(path, data={**fields, "name": f"{session}-taken"})
    assert taken.status_code == 409
    assert "Choose another name" in taken.text


def test_a_rejected_command_is_shown_as_received_and_sent_again(
    client: httpx.Client, line: CommandLine, session: str
) -> None:
    create(line, session, "a")
    body = json.dumps({"checkpoint_id": f"{session}:2"})
    line.run("publish", session, "--type", "pin", "--body", body, "--wait")
    listed = client.get("/rejected", params={"session": session}).text
    place = listed.partition('<a href="/rejected/')[2].partition('"')[0]
    page = client.get(f"/rejected/{place}").text
    assert "holds no checkpoint" in page
    assert "It would be published unchanged to partition" in page
    assert client.get(f"/rejected/{place}/raw").text == body
    create(line, session, "b")
    done = client.post(f"/rejected/{place}/retry", data={"form_token": form_token_of(page)})
    assert "Accepted" in done.text
    assert client.get(f"/rejected/{place}").status_code == 404
    assert client.get(f"/api/v1/sessions/{session}").json()["pins"] == 1


def test_all_rejected_commands_that_a_preview_counted_are_removed_and_no_later_ones(
    client: httpx.Client, line: CommandLine, session: str
) -> None:
    create(line, session, "a")

    def reject(count: int, of: str = session) -> None:
        for number in range(2, 2 + count):
            body = json.dumps({"checkpoint_id": f"{of}:{number}"})
            line.run("publish", of, "--type", "pin", "--body", body, "--wait")

    def kept(of: str = session) -> int:
        return len(client.get("/api/v1/rejected", params={"session": of}).json()["rejected"])

    reject(3)
    create(line, f"{session}-other", "a")
    reject(1, of=f"{session}-other")
    assert f"/rejected/purge?session={session}" in client.get("/rejected", params={"session": session}).text
    path = "/rejected/purge"
    page = client.get(path, params={"session": session, "code": "unknown-checkpoint"}).text
    assert "Remove 3 rejected commands?" in page
    assert "Nothing that was rejected matches" in client.get(path, params={"code": "nosuch"}).text
    reject(1)
    assert client.post(path, data={**fields_of(page), "until": ""}).status_code == 400
    assert kept() == 4
    assert "3 rejected commands removed" in confirm(client, path, page).text
    assert (kept(), kept(f"{session}-other")) == (1, 1)
    assert "0 rejected commands removed" in confirm(client, path, page).text


def test_a_session_is_proved_to_be_what_the_log_says(
    client: httpx.Client, line: CommandLine, session: str
) -> None:
    create(line, session, "a", "b")
    path = f"/sessions/{session}/verify"
    page = client.get(path).text
    done = client.post(path, data={"form_token": form_token_of(page)}, follow_redirects=True)
    assert "✓ Equal, up to " in done.text
    assert "✓ equals the log up to " in client.get(f"/sessions/{session}").text
    create(line, session, "c")
    assert "changed since" in client.get(f"/sessions/{session}").text


def test_a_checkpoint_leads_to_its_command_in_the_log_and_to_its_trace(
    shared: CommandLine, session: str
) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"

    async def publish() -> None:
        async with waypost.Publisher(
            shared.settings["WAYPOST_BOOTSTRAP_SERVERS"],
            topic_prefix=shared.settings["WAYPOST_TOPIC_PREFIX"],
            source="/planner",
        ) as publisher:
            await publisher.create_and_wait(session, "plan_made", {"stops": 2}, timeout=PATIENCE)

    tracer = TracerProvider().get_tracer("test")
    parent = trace_api.NonRecordingSpan(
        trace_api.SpanContext(int(trace, 16), 1, is_remote=True, trace_flags=trace_api.TraceFlags(1))
    )
    with tracer.start_as_current_span("run", context=trace_api.set_span_in_context(parent)):
        asyncio.run(publish())
    settings = {"WAYPOST_CONSOLE_TRACE_URL": "https://traces.example.org/t/{trace_id}"}
    with running_console(shared, settings) as console, console.client() as client:
        page = client.get(f"/sessions/{session}/1/log").text
        assert "/planner" in page
        assert f'href="https://traces.example.org/t/{trace}"' in page
        assert "stops&#34;:2" in page
        assert client.get(f"/sessions/{session}/2/log").status_code == 404


def test_what_an_adapter_encoded_is_shown_as_plain_data(
    client: httpx.Client, line: CommandLine, session: str
) -> None:
    stored = {"state": [{"__pickled__": "gARLAS4=", "__type__": "planner:Trip"}]}
    lines = [
        {"session": f"{where}{session}", "name": "n", "data": stored} for where in ("agent-framework/", "")
    ]
    text = "\n".join(map(json.dumps, lines))
    assert line.run("publish", "--stdin", "--wait", stdin=text).code == 0
    decoded, plain = (
        client.get(f"/sessions/{where}{session}/1").text for where in ("agent-framework%2F", "")
    )
    assert "__pickled__" not in decoded
    assert "planner:Trip" in decoded
    assert "__pickled__" in plain
    assert "__pickled__" in client.get(f"/sessions/agent-framework%2F{session}/1/raw").text


def test_a_role_that_may_only_read_is_enough(own: CommandLine, own_worker: Started, session: str) -> None:
    create(own, session, "a", "b")
    body = json.dumps({"checkpoint_id": f"{session}:9"})
    own.run("publish", session, "--type", "pin", "--body", body, "--wait")
    roles = own.run("migrate", "--roles").out
    dsn = own.settings["WAYPOST_POSTGRES_DSN"]

    async def make_role() -> None:
        administrator = await asyncpg.connect(dsn)
        await administrator.execute(roles)
        await administrator.execute("alter role waypost_reader password 'reader'")
        await administrator.close()

    asyncio.run(make_role())
    parts = urlsplit(dsn)
    reader = parts._replace(netloc=f"waypost_reader:reader@{parts.hostname}:{parts.port}").geturl()
    with running_console(own, {"WAYPOST_POSTGRES_DSN": reader}) as console, console.client() as client:
        for path in ("/", f"/sessions/{session}", f"/sessions/{session}/1", "/health", "/rejected"):
            assert client.get(path).status_code == 200, path
        token = form_token_of(client.get("/").text)
        path = f"/sessions/{session}/verify"
        proof = client.post(path, data={"form_token": token}, follow_redirects=True)
        assert "✓ Equal, up to " in proof.text
        path = f"/sessions/{session}/delete"
        assert "Deleted" in confirm(client, path, client.get(path, params={"checkpoint": "1"}).text).text
        place = client.get("/rejected").text.partition('<a href="/rejected/')[2].partition('"')[0]
        kept = client.post(f"/rejected/{place}/purge", data={"form_token": token})
        assert kept.status_code == 403
        assert "may only read" in kept.text
        form = fields_of(client.get("/rejected/purge").text)
        kept = client.post("/rejected/purge", data=form)
        assert (kept.status_code, "may only read" in kept.text) == (403, True)


def test_health_says_how_long_commands_wait_and_what_doctor_finds(own: CommandLine) -> None:
    for number in range(3):
        assert own.run("publish", f"s-{number}", "n", "--data", "{}").code == 0
    with running_console(own) as console, console.client() as client:
        health = client.get("/api/v1/health").json()
        assert health["lag"] == 3
        ages = [one["waiting_seconds"] for one in health["partitions"]]
        assert [age is None for age in ages] == [one["end"] == 0 for one in health["partitions"]]
        assert 0 <= health["waiting_seconds"] == max(age for age in ages if age is not None) < PATIENCE
        levels = [one["level"] for one in health["findings"]]
        assert levels == sorted(levels, key=("error", "warning", "ok").index)
        messages = {(one["level"], one["subject"]): one["message"] for one in health["findings"]}
        assert "3 commands wait" in messages["error", "workers"]
        assert {subject for _, subject in messages} >= {"versions", "brokers", "sessions"}
        page = client.get("/health").text
        assert "wait, the oldest for " in page
        assert "start one with &#39;waypost worker&#39;" in page
