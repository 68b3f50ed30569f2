"""What comes in: lines of standard input as they come, and the answer to a question."""

import asyncio
import io
import os
import sys
from collections.abc import Iterator

import pytest

from waypost_worker.cli.support.output import CommandError, confirm
from waypost_worker.cli.support.stdin import lines


class Answer(io.StringIO):
    """Standard input with somebody at it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The writing end of standard input."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield writing


def write(pipe: int, *pieces: bytes) -> None:
    for piece in pieces:
        os.write(pipe, piece)
    os.close(pipe)


async def test_lines_come_whole_whatever_they_came_in(pipe: int) -> None:
    long = b"x" * 40_000
    write(pipe, b"one\ntw", b"o\n\nfour ", long, b"\nwithout an end")
    assert [line async for line in lines()] == [b"one", b"two", b"", b"four " + long, b"without an end"]


async def test_a_line_that_is_longer_than_a_pipe(pipe: int) -> None:
    long = b"y" * 1_000_000
    writing = asyncio.create_task(asyncio.to_thread(write, pipe, *(long, b"\nend\n")))
    assert [line async for line in lines()] == [long, b"end"]
    await writing


async def test_a_line_is_there_before_the_next_one(pipe: int) -> None:
    os.write(pipe, b"one\n")
    coming = lines()
    assert await asyncio.wait_for(anext(coming), 10) == b"one"
    write(pipe, b"two\n")
    assert [line async for line in coming] == [b"two"]


async def test_empty_input_has_no_lines(pipe: int) -> None:
    write(pipe)
    assert [line async for line in lines()] == []


@pytest.mark.parametrize("answer", ["y\n", "YES\n", " y \n"])
def test_yes_continues(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str
) -> None:
    monkeypatch.setattr(sys, "stdin", Answer(answer))
    confirm("this drops 3 checkpoints", yes=False)
    assert capsys.readouterr() == ("", "This drops 3 checkpoints. Continue? [y/N]\n")


@pytest.mark.parametrize("answer", ["n\n", "\n", "", "yesterday\n"])
def test_anything_else_changes_nothing(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setattr(sys, "stdin", Answer(answer))
    with pytest.raises(CommandError, match="nothing was changed"):
        confirm("this drops 3 checkpoints", yes=False)


def test_nobody_is_asked_with_yes_or_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Answer("n\n"))
    confirm("this drops 3 checkpoints", yes=True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    confirm("this drops 3 checkpoints", yes=False)
    assert capsys.readouterr() == ("", "")
