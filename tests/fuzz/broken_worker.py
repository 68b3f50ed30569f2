"""A ``waypost worker`` with bugs, each set off by the id of a rejected command. A verdict must notice them."""

import time
from typing import Any

import tests.integration.quick_worker  # noqa: F401 - it changes how often a worker looks

from waypost_worker.cli import main
from waypost_worker.partition.encode import ResultEncoder

_rejected = ResultEncoder.rejected
_held: list[bytes] = []


def _with_bugs(encoder: ResultEncoder, *arguments: Any, command_id: str | None, **more: Any) -> Any:
    match command_id:
        case "memory":
            _held.append(b"x" * 600 * 1024 * 1024)
        case "silence":
            began = time.monotonic()
            while time.monotonic() - began < 6:
                pass
        case "failure":
            raise RuntimeError("a bug")
    return _rejected(encoder, *arguments, command_id=command_id, **more)


ResultEncoder.rejected = _with_bugs  # type: ignore[method-assign, assignment]

if __name__ == "__main__":
    main()
