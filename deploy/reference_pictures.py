"""The pictures of README and docs: boxes, lanes and arrows as SVG. What they claim is told in docs/design.md.

``python deploy/reference_pictures.py`` writes them, ``--check`` compares.
"""

import sys
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Final, NamedTuple

DOCS: Final = Path(__file__).parents[1] / "docs"

_STYLE: Final = (
    "text{font:14px system-ui,sans-serif;fill:#1f2933}"
    ".small{font-size:12px;fill:#52606d}.strong{font-weight:600}"
    "rect{fill:#fff;stroke:#52606d;stroke-width:1.2;rx:6}"
    ".paper{fill:#f8fafc;stroke:none}.store{fill:#e6f0fa}.log{fill:#fdf3d8}.ours{fill:#e3f4e6}"
    "line,path{stroke:#334e68;stroke-width:1.6;fill:none}.lane{stroke:#bcccdc;stroke-dasharray:4 4}"
)
_HEAD: Final = (
    '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" '
    'orient="auto-start-reverse"><path d="M0 0 L10 5 L0 10 z" style="fill:#334e68;stroke:none"/></marker></defs>'
)


class Box(NamedTuple):
    """A box with a title and a few small lines; ``kind`` is its colour: ours, store, log or nothing."""

    x: int
    y: int
    width: int
    height: int
    title: str
    lines: tuple[str, ...] = ()
    kind: str = ""

    def drawn(self) -> str:
        """As SVG."""
        middle = self.x + self.width // 2
        top = self.y + self.height // 2 + 5 - 9 * len(self.lines)
        texts = [
            f'<text class="strong" x="{middle}" y="{top}" text-anchor="middle">{escape(self.title)}</text>'
        ]
        texts += [
            f'<text class="small" x="{middle}" y="{top + 18 * row}" text-anchor="middle">{escape(line)}</text>'
            for row, line in enumerate(self.lines, 1)
        ]
        frame = f'<rect class="{self.kind}" x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}"/>'
        return frame + "".join(texts)


def _arrow(start: tuple[int, int], end: tuple[int, int], text: str = "", above: int = 8) -> str:
    line = f'<line x1="{start[0]}" y1="{start[1]}" x2="{end[0]}" y2="{end[1]}" marker-end="url(#head)"/>'
    x, y = (start[0] + end[0]) // 2, (start[1] + end[1]) // 2 - above
    return line + (
        f'<text class="small" x="{x}" y="{y}" text-anchor="middle">{escape(text)}</text>' if text else ""
    )


def _sheet(width: int, height: int, title: str, parts: Iterable[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img"><title>{escape(title)}</title><style>{_STYLE}</style>{_HEAD}'
        f'<rect class="paper" width="{width}" height="{height}"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def overview() -> str:
    """docs/overview.svg: who writes what, and who reads it."""
    boxes = (
        Box(20, 60, 150, 90, "Agent", ("waypost.Publisher", "returns at once", "spool on disk"), "ours"),
        Box(
            250, 60, 160, 90, "Kafka", ("waypost.commands", "a session has one", "partition: the log"), "log"
        ),
        Box(
            490, 60, 170, 90, "Worker", ("owns a partition,", "applies each command", "exactly once"), "ours"
        ),
        Box(740, 60, 160, 90, "Kafka", ("waypost.results", "one event for each", "command, in order"), "log"),
        Box(740, 230, 160, 80, "Subscribers", ("billing, dashboards,", "evaluators, approval"), "ours"),
        Box(490, 230, 170, 80, "Postgres", ("sessions, checkpoints,", "what was applied"), "store"),
        Box(250, 230, 160, 80, "Reader, CLI", ("read, roll back,", "export, verify"), "ours"),
    )
    arrows = (
        _arrow((170, 105), (248, 105), "create"),
        _arrow((410, 105), (488, 105), "fetch"),
        _arrow((660, 105), (738, 105), "append"),
        _arrow((575, 150), (575, 228)),
        '<text class="small" x="585" y="186">a batch is one</text>',
        '<text class="small" x="585" y="202">transaction</text>',
        _arrow((820, 150), (820, 228)),
        '<text class="small" x="812" y="186" text-anchor="end">any consumer,</text>',
        '<text class="small" x="812" y="202" text-anchor="end">each event once</text>',
        _arrow((490, 270), (412, 270), "read"),
        '<path d="M330 228 L330 152" marker-end="url(#head)"/>',
        '<text class="small" x="322" y="186" text-anchor="end">a rollback is</text>',
        '<text class="small" x="322" y="202" text-anchor="end">a command, too</text>',
    )
    title = "Agents publish commands to Kafka, workers apply them to Postgres, subscribers get results"
    heading = '<text class="strong" x="20" y="32">A checkpoint on its way</text>'
    return _sheet(920, 335, title, (heading, *(box.drawn() for box in boxes), *arrows))


_LANES: Final = ("older owner", "Postgres", "results[p]", "commands[p]", "new owner")
_STEPS: Final[Sequence[tuple[int, int, str]]] = (
    (4, 1, "1  raise the epoch; read position, anchor, outbox"),
    (0, 1, "a late commit is refused"),
    (4, 2, "2  append the fence record under a new producer epoch"),
    (0, 2, "a late append: refused by the broker"),
    (2, 4, "3  read the tail up to the fence: what was emitted"),
    (3, 4, "4  is it still the same log?"),
    (4, 2, "5  append what was committed and not emitted"),
    (3, 4, "6  consume"),
)


def takeover() -> str:
    """docs/takeover.svg: how a partition changes hands, step by step as in docs/design.md."""
    first, apart, top, step = 90, 190, 80, 44
    bottom = top + step * len(_STEPS) + 20
    parts = []
    for lane, name in enumerate(_LANES):
        x = first + apart * lane
        kind = ("ours", "store", "log", "log", "ours")[lane]
        parts.append(f'<line class="lane" x1="{x}" y1="58" x2="{x}" y2="{bottom}"/>')
        parts.append(Box(x - 65, 20, 130, 38, name, (), kind).drawn())
    for row, (start, end, text) in enumerate(_STEPS):
        y = top + step * row + 24
        parts.append(_arrow((first + apart * start, y), (first + apart * end, y)))
        x = first + apart * min(start, end) + 8
        parts.append(f'<text class="small" x="{x}" y="{y - 7}">{escape(text)}</text>')
    return _sheet(2 * first + apart * 4, bottom + 15, "How a partition changes hands", parts)


def main() -> int:
    """Write, or only compare."""
    made = {DOCS / "overview.svg": overview(), DOCS / "takeover.svg": takeover()}
    differing = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv[1:]:
        for path in differing:
            print(f"{path.name} is out of date: run 'make reference'", file=sys.stderr)  # noqa: T201
        return 1 if differing else 0
    for path in differing:
        path.write_text(made[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
