"""The list of databases: how it is written, what is masked of it, and which places are refused."""

import os
from pathlib import Path
from unittest import mock
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.cli import CommandLine, environment

from waypost.errors import ShardMapError
from waypost.shards import ONLY, ShardSlot, check_place, dsn_list, shard_of
from waypost_worker.config.settings import Settings, load_settings, masked_dsn, secret_values

ONE = "postgresql://me:hush-1@db:5432,other:5433/x?target_session_attrs=read-write"
TWO = "postgres://me:hush%2F2@[::1]/x?application_name=a"
THREE = "postgresql:///x?host=/run/pg&password=hush-3"
SET = uuid4()


def loaded(**variables: str) -> Settings:
    with mock.patch.dict(os.environ, environment(variables), clear=True):
        return load_settings()


@pytest.mark.parametrize("between", [" ", "\n", "\t \r\n  "])
def test_a_list_is_separated_by_white_space_and_hosts_by_commas(between: str) -> None:
    assert loaded(WAYPOST_POSTGRES_DSN=between.join((ONE, TWO, THREE))).dsns == [ONE, TWO, THREE]


def test_one_dsn_is_a_list_of_one_and_other_texts_stay_whole() -> None:
    assert loaded(WAYPOST_POSTGRES_DSN=ONE).dsns == [ONE]
    assert dsn_list("host=db password='hu sh' user=me") == ["host=db password='hu sh' user=me"]
    assert dsn_list([ONE, TWO]) == [ONE, TWO]


def test_the_list_can_come_from_a_file_a_line_for_each(tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text(f"{ONE}\n{TWO}\n")
    assert loaded(WAYPOST_POSTGRES_DSN_FILE=str(tmp_path / "dsn")).dsns == [ONE, TWO]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{ONE},{TWO}", "is more than one URL: separate them by white space, not by commas"),
        (f"{ONE}, {TWO}", "number 1 of 2 is more than one URL"),
        (f"{ONE} postgresql://me:hush/4@db/x", "number 2 of 2 is not a URL of the form"),
        (f"postgresql://me:hush {TWO}", "number 1 of 2 is not a URL of the form"),
    ],
)
def test_an_invalid_list_is_an_error_that_quotes_nothing(tmp_path: Path, text: str, said: str) -> None:
    found = CommandLine(tmp_path, {"WAYPOST_POSTGRES_DSN": text}).run("session", "list")
    assert (found.code, found.out) == (2, "")
    assert said in found.error
    assert "hush" not in found.error


def test_every_password_of_a_list_is_masked_and_known_as_a_secret(tmp_path: Path) -> None:
    text = f"{ONE}\n{TWO}\n{THREE}"
    masked = masked_dsn(text)
    assert "hush" not in masked
    assert [part.partition(":")[0] for part in masked.split(" ")] == ["postgresql", "postgres", "postgresql"]
    assert "@db:5432,other:5433/x" in masked
    assert "@[::1]/x" in masked
    assert set(secret_values(loaded(WAYPOST_POSTGRES_DSN=text))) == {"hush-1", "hush%2F2", "hush/2", "hush-3"}
    for output in ("table", "json", "jsonl"):
        shown = CommandLine(tmp_path, {"WAYPOST_POSTGRES_DSN": text}).run("config", "show", "-o", output)
        assert shown.code == 0
        assert "hush" not in shown.out + shown.err


@given(st.integers(0, 10_000), st.integers(1, 64))
def test_every_partition_has_one_shard(partition: int, shards: int) -> None:
    assert 0 <= shard_of(partition, shards) < shards
    assert shard_of(partition, 1) == 0
    assert shard_of(partition + shards, shards) == shard_of(partition, shards)


@pytest.mark.parametrize(
    ("noted", "used", "given"),
    [
        (None, False, ONLY),
        (None, True, ONLY),
        (None, False, ShardSlot(1, 2)),
        (ShardSlot(1, 2, SET), True, ShardSlot(1, 2)),
        (ShardSlot(1, 2, SET), True, ShardSlot(1, 2, SET)),
    ],
)
def test_a_database_may_take_its_place(noted: ShardSlot | None, used: bool, given: ShardSlot) -> None:
    check_place(noted, used, given)


@pytest.mark.parametrize(
    ("noted", "used", "given", "said"),
    [
        (None, True, ShardSlot(0, 2), "shard 0 of 2 was recorded as the only database of a deployment"),
        (ShardSlot(0, 2, SET), False, ONLY, "the only database of a deployment was recorded as shard 0 of 2"),
        (
            ShardSlot(0, 2, SET),
            True,
            ShardSlot(0, 3),
            "shard 0 of 3 was recorded as shard 0 of 2: with another number",
        ),
        (
            ShardSlot(0, 2, SET),
            True,
            ShardSlot(1, 2),
            "shard 1 of 2 was recorded as shard 0 of 2: the list is in a different",
        ),
        (ShardSlot(1, 2, SET), True, ShardSlot(1, 2, uuid4()), "shard 1 of 2 belongs to another set"),
    ],
)
def test_a_database_in_another_place_is_refused(
    noted: ShardSlot | None, used: bool, given: ShardSlot, said: str
) -> None:
    with pytest.raises(ShardMapError) as refused:
        check_place(noted, used, given)
    assert said in str(refused.value)
    assert "Nothing was changed" in str(refused.value)
