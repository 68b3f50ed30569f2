"""Log lines: what other libraries say comes out in the same form, once."""

import json
import logging
import re
from pathlib import Path

import pytest
import structlog
from tests.support.cli import CommandLine
from tests.support.logging_state import logs_as_before

from waypost_worker.telemetry.logs import configure_logs


def test_a_line_of_the_http_server_has_no_second_text_for_terminals(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with logs_as_before():
        configure_logs("info", "json")
        extra = {"color_message": "\x1b[36mFinished\x1b[0m", "port": 9464}
        logging.getLogger("uvicorn.error").info("Finished", extra=extra)
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["port"]) == ("Finished", 9464)
    assert "color_message" not in line


def test_a_command_of_a_test_leaves_the_tests_logging_alone(tmp_path: Path) -> None:
    ended = CommandLine(tmp_path, {"WAYPOST_KAFKA_SSL_CA_FILE": "missing.pem"}).run("worker")
    assert ended.code == 2
    assert not structlog.is_configured()


HOSTILE = "a\x1b[31m\x9b\u202e\u2028\U000e0041b"


def _fails(sent: str) -> None:
    secret_local = "only-in-" + "a-local"
    raise ValueError(f"{sent} {len(secret_local)}")


@pytest.mark.parametrize("form", ["console", "json"])
@pytest.mark.parametrize("foreign", [False, True])
def test_a_traceback_shows_no_locals_and_steers_no_terminal(
    capsys: pytest.CaptureFixture[str], form: str, foreign: bool
) -> None:
    with logs_as_before():
        configure_logs("info", form)
        try:
            _fails(HOSTILE)
        except ValueError:
            if foreign:
                logging.getLogger("elsewhere").exception("failed")
            else:
                structlog.get_logger().exception("failed")
    said = capsys.readouterr().err
    assert "ValueError" in said
    assert "_fails(HOSTILE)" in said
    assert "only-in-a-local" not in said
    assert steady(said)


@pytest.mark.parametrize("form", ["console", "json"])
def test_values_from_agents_steer_no_terminal(capsys: pytest.CaptureFixture[str], form: str) -> None:
    with logs_as_before():
        configure_logs("info", form)
        structlog.get_logger().warning(
            "rejected", session=HOSTILE, listed=[HOSTILE], error=ValueError(HOSTILE)
        )
        logging.getLogger("elsewhere").warning("from %s", HOSTILE)
    said = capsys.readouterr().err
    assert steady(said)
    assert said.count("\n") == 2
    if form == "json":
        assert json.loads(said.splitlines()[0])["session"] == HOSTILE


def steady(said: str) -> bool:
    """Whether nothing but the colors of the log itself is in it, and none that came with a value."""
    assert "\x1b[31m\\x9b" not in said
    return all(line.isprintable() for line in re.sub(r"\x1b\[[0-9;]*m", "", said).split("\n"))
