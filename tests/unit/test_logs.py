"""Log lines: what other libraries say comes out in the same form, once."""

import json
import logging

import pytest
import structlog

from waypost_worker.telemetry.logs import configure_logs


def test_a_line_of_the_http_server_has_no_second_text_for_terminals(
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        configure_logs("info", "json")
        extra = {"color_message": "\x1b[36mFinished\x1b[0m", "port": 9464}
        logging.getLogger("uvicorn.error").info("Finished", extra=extra)
    finally:
        root.handlers[:], root.level = before, level
        structlog.reset_defaults()
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["port"]) == ("Finished", 9464)
    assert "color_message" not in line
