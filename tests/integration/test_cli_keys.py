"""``waypost keys``: stores, wrapping keys, looking at keys, and a rotation that is stopped and started again."""

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.support.cli import CommandLine

from waypost import DirectoryKeyStore, FileWrapper, PostgresKeyStore
from waypost.encryption.codec import Codec, Found
from waypost.encryption.key_store import KeyStore
from waypost.wire.encode import create_parts
from waypost_worker.cli.keys import rotation
from waypost_worker.operations.keys import check_keys

NOW = datetime(2026, 11, 30, tzinfo=UTC)


@pytest.fixture(params=["directory", "postgres"])
def line(request: pytest.FixtureRequest, tmp_path: Path) -> CommandLine:
    if request.param == "directory":
        where = {"WAYPOST_KEYS_DIRECTORY": str(tmp_path / "keys")}
    else:
        where = {"WAYPOST_KEYS_DSN": request.getfixturevalue("database")}
    made = CommandLine(tmp_path, {**where, "WAYPOST_WRAPPING_KEY_FILE": "wrapping.key"})
    assert made.run("keys", "create-wrapping-key", "wrapping.key").code == 0
    assert made.run("keys", "init", "-o", "json").json["made"] is True
    return made


def store_of(line: CommandLine) -> KeyStore:
    if dsn := line.settings.get("WAYPOST_KEYS_DSN"):
        return PostgresKeyStore(dsn)
    return DirectoryKeyStore(line.settings["WAYPOST_KEYS_DIRECTORY"])


def with_keys(line: CommandLine, *sessions: str, erased: str | None = None) -> None:
    async def make() -> None:
        codec = Codec(store_of(line), FileWrapper(line.directory / "wrapping.key"))
        await codec.prepare(*sessions)
        if erased is not None:
            await codec.store.erase(erased, NOW)
        await codec.close()

    asyncio.run(make())


def test_a_store_is_made_once(line: CommandLine) -> None:
    first = line.run("keys", "init", "-o", "json").json
    assert first["made"] is False
    assert re.fullmatch(r"[0-9a-f-]{36}", first["deployment"])
    assert line.run("keys", "init", "-o", "json").json == first


def test_keys_are_listed_and_shown_and_never_seen(line: CommandLine) -> None:
    with_keys(line, "customer-7/a", "customer-7/b", "other", erased="customer-7/b")
    rows = line.run("keys", "list", "--prefix", "customer-7/", "-o", "jsonl").rows
    assert {row["session_id"]: row["state"] for row in rows} == {
        "customer-7/a": "wrapped",
        "customer-7/b": "erased",
    }
    assert [row["session_id"] for row in line.run("keys", "list", "--erased", "-o", "jsonl").rows] == [
        "customer-7/b"
    ]
    few = line.run("keys", "list", "--limit", "1", "-o", "jsonl")
    assert len(few.rows) == 1
    assert "first 1" in few.err
    shown = line.run("keys", "show", "other", "-o", "json")
    assert (shown.code, shown.json["can_be_unwrapped"]) == (0, True)
    assert set(shown.json) == {
        *("session_id", "key_id", "state", "wrapping_key", "created_at", "erased_at", "can_be_unwrapped")
    }
    gone = line.run("keys", "show", "customer-7/b", "-o", "json")
    assert (gone.code, gone.json["can_be_unwrapped"]) == (1, False)
    assert gone.json["erased_at"].startswith("2026-11-30")
    assert line.run("keys", "show", "unknown").error == "the key store holds no key of session 'unknown'"


def test_a_rotation_wraps_every_key_again_and_data_stays_readable(line: CommandLine) -> None:
    with_keys(line, *(f"s-{number}" for number in range(12)), erased="s-3")
    encrypted = asyncio.run(some_data(line))
    (old,) = {row["wrapping_key"] for row in line.run("keys", "list", "-o", "jsonl").rows} - {None}
    added = line.run("keys", "create-wrapping-key", "wrapping.key", "--add", "-o", "json").json
    assert added["older"] == [old]
    plan = line.run("keys", "rotate", "--dry-run", "-o", "json").json
    assert plan == {"newest": added["wrapping_key"], "would_wrap": 11}
    done = line.run("keys", "rotate", "-o", "json")
    assert (done.code, done.json["wrapped"], done.json["failed"]) == (0, 11, 0)
    assert "Wrapping: 11 of 11 keys" in done.err
    rows = line.run("keys", "list", "-o", "jsonl").rows
    assert {row["wrapping_key"] for row in rows if row["state"] == "wrapped"} == {added["wrapping_key"]}
    assert line.run("keys", "rotate", "-o", "json").json["wrapped"] == 0
    # The older key is not needed any more.
    path = line.directory / "wrapping.key"
    path.write_text(path.read_text().split()[0])
    assert asyncio.run(read(line, encrypted)) == [b'{"secret":1}']


async def some_data(line: CommandLine) -> bytes:
    codec = Codec(store_of(line), FileWrapper(line.directory / "wrapping.key"))
    await codec.prepare("s-1")
    body = codec.encrypted_body(create_parts("n", {"secret": 1}), "s-1", "c-1")
    await codec.close()
    return body.partition(b'"data":')[2][:-1]


async def read(line: CommandLine, data: bytes) -> list[bytes]:
    codec = Codec(store_of(line), FileWrapper(line.directory / "wrapping.key"))
    found = await codec.decrypt([Found("s-1", "n", "c-1", data, "it")])
    await codec.close()
    return found


def test_a_rotation_that_is_stopped_resumes_where_it_was(
    line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_keys(line, *(f"s-{number}" for number in range(10)))
    line.run("keys", "create-wrapping-key", "wrapping.key", "--add")
    wrap_again = rotation.Rotation.wrap_again

    async def interrupted(self: rotation.Rotation, key: object) -> None:
        if self.wrapped == 4:
            raise KeyboardInterrupt
        await wrap_again(self, key)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(rotation.Rotation, "wrap_again", interrupted)
        assert line.run("keys", "rotate").code == 130
    assert len({row["wrapping_key"] for row in line.run("keys", "list", "-o", "jsonl").rows}) == 2
    assert line.run("keys", "rotate", "-o", "json").json["wrapped"] == 6


def test_a_key_that_can_t_be_unwrapped_stays_as_it_is_and_is_named(line: CommandLine) -> None:
    with_keys(line, "lost")
    before = line.run("keys", "list", "-o", "jsonl").rows
    (line.directory / "wrapping.key").unlink()
    line.run("keys", "create-wrapping-key", "wrapping.key")
    with_keys(line, "kept")
    done = line.run("keys", "rotate", "-o", "json")
    assert (done.code, done.json["failed"]) == (1, 1)
    assert "the key of session 'lost' stays as it is" in done.err
    assert before[0] in line.run("keys", "list", "-o", "jsonl").rows
    shown = line.run("keys", "show", "lost")
    assert shown.code == 1
    assert "Add the older wrapping key below the newest" in shown.err


def test_a_wrapping_key_is_never_written_over(line: CommandLine) -> None:
    path = line.directory / "wrapping.key"
    before = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    again = line.run("keys", "create-wrapping-key", "wrapping.key")
    assert again.code == 1
    assert "exists already. Nothing was written" in again.error
    assert path.read_text() == before
    missing = line.run("keys", "create-wrapping-key", "none", "--add")
    assert "does not exist" in missing.error


def test_without_settings_the_error_names_the_missing_ones(tmp_path: Path) -> None:
    line = CommandLine(tmp_path, {})
    assert "set WAYPOST_KEYS_DIRECTORY or WAYPOST_KEYS_DSN" in line.run("keys", "list").error
    line = CommandLine(tmp_path, {"WAYPOST_KEYS_DIRECTORY": str(tmp_path / "keys")})
    assert "There is no key store in the directory" in line.run("keys", "list").error
    line.run("keys", "init")
    assert "one of wrapping_key, wrapping_key_file and key_wrapper" in line.run("keys", "rotate").error
    both = {**line.settings, "WAYPOST_KEYS_DSN": "postgresql://localhost/keys"}
    assert "both set" in CommandLine(tmp_path, both).run("keys", "list").error
    (tmp_path / "waypost.toml").write_text('key_wrapper = "evil:code"\n')
    assert "key_wrapper can't be in a file" in line.run("keys", "rotate").error


def test_a_store_among_the_sessions_is_warned_of(database: str, tmp_path: Path) -> None:
    line = CommandLine(tmp_path, {"WAYPOST_POSTGRES_DSN": database, "WAYPOST_KEYS_DSN": database})
    made = line.run("keys", "init")
    assert made.code == 0
    assert "whose backups bring deleted keys back" in made.err


async def test_doctor_says_whether_the_keys_are_at_hand(line: CommandLine) -> None:
    wrapper = FileWrapper(line.directory / "wrapping.key")
    codec = Codec(store_of(line), wrapper)
    await codec.prepare("a", "b", "c")
    await codec.store.erase("c", NOW)
    (well,) = await check_keys(codec, [], None)
    assert (well.level, well.subject) == ("ok", "keys")
    assert re.search(r"2 session keys can be unwrapped, wrapped with [0-9a-f]{16}; 1 erased", well.message)
    (shared, _) = await check_keys(codec, ["postgresql://db/keys"], "postgresql://user:secret@db:5432/keys")
    assert shared.level == "warning"
    assert "secret" not in shared.message
    (line.directory / "wrapping.key").unlink()
    line.run("keys", "create-wrapping-key", "wrapping.key")
    (lost,) = await check_keys(Codec(store_of(line), FileWrapper(line.directory / "wrapping.key")), [], None)
    assert lost.level == "error"
    assert "can't be unwrapped" in lost.message
    assert "'a'" in lost.message
    (away,) = await check_keys(Codec(DirectoryKeyStore(line.directory / "none"), wrapper), [], None)
    assert away.level == "error"
    assert "There is no key store" in away.message


def test_the_command_asks_for_keys_only_if_there_are_settings(
    untouched_database: str, tmp_path: Path
) -> None:
    settings = {"WAYPOST_BOOTSTRAP_SERVERS": "127.0.0.1:1", "WAYPOST_POSTGRES_DSN": untouched_database}
    subjects = [row["subject"] for row in CommandLine(tmp_path, settings).run("doctor", "-o", "json").json]
    assert "keys" not in subjects
    keys = {"WAYPOST_KEYS_DIRECTORY": str(tmp_path / "keys"), "WAYPOST_WRAPPING_KEY_FILE": "wrapping.key"}
    rows = CommandLine(tmp_path, {**settings, **keys}).run("doctor", "-o", "json").json
    (found,) = [row for row in rows if row["subject"] == "keys"]
    assert found["level"] == "error"
    assert "waypost keys init" in found["message"]
    only = {"WAYPOST_KEYS_DIRECTORY": str(tmp_path / "keys")}
    rows = CommandLine(tmp_path, {**settings, **only}).run("doctor", "-o", "json").json
    assert "one of wrapping_key" in next(row["message"] for row in rows if row["subject"] == "keys")
