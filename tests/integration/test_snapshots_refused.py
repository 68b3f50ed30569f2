"""What must not be restored is refused, in one line, and the target stays as it was."""

import asyncio
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.support.cli import CommandLine
from tests.support.deployment import Deployment
from tests.support.snapshots import (
    PARTITIONS,
    contents,
    edited,
    empty,
    here,
    line,
    restored,
    run,
    said,
    taken,
    trim,
    worked,
)

from waypost_worker.snapshots.manifest import FORMAT

__all__ = ["empty", "here", "line"]


@dataclass(frozen=True)
class Damage:
    do: Callable[[Path], None]
    words: str


def _files(snapshot: Path) -> list[Path]:
    return sorted(snapshot.rglob("checkpoints-*.zst"))


def _cut(snapshot: Path) -> None:
    raw = _files(snapshot)[-1].read_bytes()
    _files(snapshot)[-1].write_bytes(raw[:-1])


def _flip(snapshot: Path) -> None:
    raw = bytearray(_files(snapshot)[-1].read_bytes())
    raw[len(raw) // 2] ^= 1
    _files(snapshot)[-1].write_bytes(raw)


DAMAGES = {
    "a file is cut": Damage(_cut, "bytes instead of"),
    "a bit is flipped": Damage(_flip, "another checksum than when it was written"),
    "a file is missing": Damage(lambda snapshot: _files(snapshot)[-1].unlink(), "is missing"),
    "no manifest": Damage(lambda snapshot: (snapshot / "manifest.json").unlink(), "was never completed"),
    "a cut manifest": Damage(lambda s: os.truncate(s / "manifest.json", 500), "can't be read"),
    "another version": Damage(
        edited(lambda f: f.update(version=2)), f"this Waypost reads '{FORMAT}', version 1"
    ),
    "a newer schema": Damage(
        edited(
            lambda f: f["migrations"].append(
                {"number": len(f["migrations"]) + 1, "name": "later", "sha256": "0" * 64}
            )
        ),
        "this version knows only",
    ),
    "another topic's name": Damage(
        edited(lambda f: f.update(commands_topic="other.commands")), "is of the topic 'other.commands'"
    ),
    "other rows than it says": Damage(
        edited(lambda f: f["parts"][-1]["rows"].update(checkpoints=1)), "rows of 'checkpoints' instead of 1"
    ),
    "another record before its position": Damage(
        edited(lambda f: f["parts"][0].update(anchor="00" * 16)), "ends with another record at offset"
    ),
    "a position behind the log": Damage(
        edited(lambda f: f["parts"][0].update(next_offset=10_000)), "the topic was recreated or truncated"
    ),
    "another partition count": Damage(
        edited(lambda f: f.update(partitions=3)), "it belongs to another topic"
    ),
}


async def test_a_damaged_or_foreign_snapshot_is_not_restored(
    here: Deployment, line: CommandLine, empty: str, tmp_path: Path
) -> None:
    await worked(here)
    name = (await taken(line))["name"]
    whole = tmp_path / "snapshots" / name
    for number, (what, damage) in enumerate(DAMAGES.items()):
        place = tmp_path / f"damaged-{number}"
        await asyncio.to_thread(shutil.copytree, whole.parent, place)
        damage.do(place / name)
        ended = await restored(line, empty, "--at", str(place))
        words = "holds no complete snapshot" if what == "no manifest" else damage.words
        assert words in said(ended), what
        named = await run(line, "snapshot", "restore", name, "--postgres-dsn", empty, "--at", str(place))
        assert damage.words in said(named), what
        assert await contents(empty) == {}, what
        checked = await run(line, "snapshot", "check", name, "--at", str(place))
        if what != "other rows than it says":  # the files are as they were written
            assert damage.words in said(checked), what
    assert (await restored(line, empty)).code == 0


async def test_a_database_in_use_stays_as_it_is(here: Deployment, line: CommandLine) -> None:
    await worked(here)
    await taken(line)
    before = await contents(here.dsn)
    assert "is not empty: there are rows in 'partitions'" in said(await restored(line, here.dsn))
    assert await contents(here.dsn) == before


async def test_a_log_that_begins_after_the_snapshot_is_reported(
    here: Deployment, line: CommandLine, empty: str
) -> None:
    await worked(here)
    await taken(line)
    for partition in range(PARTITIONS):
        here.own(partition)
    session = here.sessions(0)[0]
    for _ in range(5):
        last = await here.create(session)
    await here.answered(30 + 12 + 5)
    await trim(here, here.topics.commands, 0, last)
    ended = await restored(line, empty)
    assert "retention removed what lies between" in said(ended)
    assert await contents(empty) == {}
    findings = (await run(line, "doctor", "-o", "json")).json
    (told,) = [each for each in findings if each["subject"] == "log and snapshots"]
    assert told["level"] == "error"
    assert "partition 0: the log begins after the newest snapshot" in told["message"]
    await taken(line)
    findings = (await run(line, "doctor", "-o", "json")).json
    (told,) = [each for each in findings if each["subject"] == "log and snapshots"]
    assert (told["level"], told["message"].endswith("and the log overlap")) == ("ok", True)
    assert (await run(line, "snapshot", "check")).code == 0


async def test_doctor_does_not_count_a_snapshot_of_another_topic(
    here: Deployment, line: CommandLine, tmp_path: Path
) -> None:
    await worked(here)
    name = (await taken(line))["name"]
    edited(lambda fields: fields.update(commands_topic="other.commands"))(tmp_path / "snapshots" / name)
    ended = await run(line, "doctor", "-o", "json")
    (told,) = [each for each in ended.json if each["subject"] == "log and snapshots"]
    assert told["level"] == "error"
    assert "is of the topic 'other.commands'" in told["message"]


async def test_with_a_key_only_what_is_signed_with_it_is_used(
    here: Deployment, line: CommandLine, empty: str, tmp_path: Path
) -> None:
    await worked(here, 5)
    before = await taken(line)
    assert not before["signed"]
    key, other = tmp_path / "key", tmp_path / "other"
    key.write_text("k" * 32 + "\n")
    other.write_text("o" * 32 + "\n")
    with_key = replace(line, settings={**line.settings, "WAYPOST_SNAPSHOTS_KEY_FILE": str(key)})
    with_other = replace(line, settings={**line.settings, "WAYPOST_SNAPSHOTS_KEY_FILE": str(other)})
    assert "is not signed, and a key is set" in said(await run(with_key, "snapshot", "check"))
    made = await taken(with_key)
    assert made["signed"]
    name, unsigned = made["name"], before["name"]

    checked = await run(with_key, "snapshot", "check", "-o", "json")
    assert checked.code == 0
    assert "signed" not in str(checked.json)
    unchecked = await run(line, "snapshot", "check", name, "--offline", "-o", "json")
    assert "no key is set to check that" in str(unchecked.json)
    for refused, command in (
        (unsigned, with_key),
        (name, with_other),
        (unsigned, with_other),
    ):
        for action in (
            ("check", "--offline"),
            ("restore", "--postgres-dsn", empty),
            ("restore", "--postgres-dsn", empty, "--dry-run"),
        ):
            assert "not signed" in said(await run(command, "snapshot", action[0], refused, *action[1:]))
    verified = await run(with_other, "verify", "--of-snapshot", name)
    assert (verified.code, "not signed" in verified.err) == (2, True)
    states = {
        each["name"]: each["state"] for each in (await run(with_key, "snapshot", "list", "-o", "json")).json
    }
    assert states == {unsigned: "unreadable", name: "complete"}

    # A change to a file, with all checksums made to fit.
    edited(lambda fields: fields["parts"][0].update(epoch=7))(tmp_path / "snapshots" / unsigned)
    assert "not signed" in said(await restored(with_key, empty, unsigned))
    allowed = await restored(with_other, empty, name, "--allow-unsigned")
    assert allowed.code == 0, allowed.err
    assert await contents(empty) == await contents(here.dsn)


async def test_a_short_key_and_an_empty_file_are_errors(line: CommandLine, tmp_path: Path) -> None:
    short = await run(
        replace(line, settings={**line.settings, "WAYPOST_SNAPSHOTS_KEY": "short-secret"}), "snapshot", "list"
    )
    assert short.code == 2
    assert "WAYPOST_SNAPSHOTS_KEY" in short.err
    assert "short-secret" not in short.err


@pytest.mark.parametrize("raw_size", [10**15, 2**24 + 1])
async def test_a_snapshot_that_claims_to_be_endless_is_refused_immediately(
    here: Deployment, line: CommandLine, empty: str, tmp_path: Path, raw_size: int
) -> None:
    await worked(here, 5)
    name = (await taken(line))["name"]
    edited(lambda fields: fields["parts"][0]["files"][0].update(raw_size=raw_size))(
        tmp_path / "snapshots" / name
    )
    for path in (tmp_path / "snapshots" / name).glob("partition-*/*"):
        path.unlink()  # so that reading any of them would be another error
    for action in (("check", "--offline"), ("restore", "--postgres-dsn", empty)):
        assert "'raw_size' is not as Waypost writes it" in said(
            await run(line, "snapshot", action[0], name, *action[1:])
        )
