"""Log lines: what other libraries say comes out in the same form, once."""

import json
import logging
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
