"""``python -m tests.tools.demo.picture``: the end of the demo as docs/demo.svg, from ``build/demo.json``.

The figures are kept in docs/measured/demo.json, and the picture is what they come to.
"""

import json
import shutil
import sys
from collections.abc import Mapping
from html import escape
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

from tests.tools.demo.table import explained

_ROOT: Final = Path(__file__).parents[3]
KEPT: Final = _ROOT / "docs" / "measured" / "demo.json"
PICTURE: Final = _ROOT / "docs" / "demo.svg"
_MADE: Final = Path("build") / "demo.json"
_WIDTH: Final = 640
_COUNTS: Final = 318  # the right edge of the numbers
_MEANINGS: Final = 332
_LETTERS: Final = 40  # of a line of a meaning
_LINE: Final = 18
_BETWEEN: Final = 12
_INK, _QUIET, _GOOD, _BAD = "#1f2933", "#52606d", "#1a7f37", "#b3261e"
_FONT: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


def draw(found: Mapping[str, Any]) -> str:
    """Return the SVG's text: each number of the table with what it means, and the verdict."""
    body = [
        _text(20, 32, "The end of make demo", _INK, size=17, weight=600),
        _text(20, 54, "Real Kafka and Postgres; 20 agents; one of two workers is killed on the way.", _QUIET),
    ]
    y = 84
    for what, count, meaning in explained(dict(found)):
        lines = wrap(meaning, _LETTERS)
        body += [
            f'<path d="M20 {y - 20}H{_WIDTH - 20}" stroke="#e4e7eb"/>',
            _text(20, y, what, _INK, weight=600),
            _text(_COUNTS, y, count, _INK, anchor="end"),
            *(_text(_MEANINGS, y + _LINE * row, line, _QUIET, size=13) for row, line in enumerate(lines)),
        ]
        y += _LINE * len(lines) + _BETWEEN
    good = not any(found[name] for name in ("lost", "doubled", "rows_differing", "results_differing"))
    words = "Nothing lost, nothing doubled." if good else "The books do not balance."
    body += [
        f'<path d="M20 {y - 20}H{_WIDTH - 20}" stroke="#e4e7eb"/>',
        _text(20, y + 6, words, _GOOD if good else _BAD, size=16, weight=600),
    ]
    height = y + 24
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" role="img" font-family="{_FONT}">\n'
        "<title>The end of make demo: each number, and what it means</title>\n"
        f'<rect x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="8" fill="#ffffff" '
        'stroke="#cbd2d9"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _text(
    x: int, y: int, text: str, color: str, *, size: int = 14, weight: int = 400, anchor: str = "start"
) -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="{color}">{escape(text)}</text>'
    )


def main() -> int:
    """Keep the figures of the last demo, and draw them. Exit code 1 if there are none."""
    if not _MADE.exists():
        print(f"{_MADE} does not exist. Nothing was changed. Run: make demo", file=sys.stderr)
        return 1
    shutil.copyfile(_MADE, KEPT)
    PICTURE.write_text(draw(json.loads(KEPT.read_text(encoding="utf-8"))), encoding="utf-8")
    print(f"docs/{PICTURE.name}, docs/measured/{KEPT.name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
