"""Typical states of agents, and their names: the same for every system."""

import random
from typing import Any, Final

_TEMPLATES: Final = 97


def states(size: int, seed: int = 1) -> list[dict[str, Any]]:
    """Working states whose JSON has about ``size`` bytes; text that compresses no better than prose."""
    chooser = random.Random(seed)
    made = []
    for step in range(_TEMPLATES):
        state: dict[str, Any] = {
            "step": step,
            "goal": "write the report",
            "scores": [round(chooser.random(), 6) for _ in range(8)],
            "messages": [],
        }
        left = max(0, size - 260)
        for role in ("user", "assistant", "tool", "assistant"):
            text = "".join(chooser.choices("abcdefghij klmnopq", k=left // 4))
            state["messages"].append({"role": role, "content": text})
        made.append(state)
    return made


def session_name(number: int) -> str:
    """Ids as agents have them."""
    return f"run-2026-11-24-{number:06d}"
