"""The pictures of README and docs: boxes, lanes and arrows as SVG. docs/design.md explains what they show.

``python deploy/reference_pictures.py`` writes them, ``--check`` compares. Narrow, with large letters, so that they can
be read on a phone. No line crosses another one or a label.
"""

import sys
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Final, NamedTuple

DOCS: Final = Path(__file__).parents[1] / "docs"

WIDTH: Final = 640
_STYLE: Final = (
    "text{font:15px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:#1f2933}"
    ".small{font-size:13px;fill:#52606d}.strong{font-weight:600}.name{font-size:13px;font-weight:600}"
    "rect{fill:#fff;stroke:#52606d;stroke-width:1.2}"
    ".paper{fill:#fff;stroke:none}.store{fill:#e6f0fa}.log{fill:#fdf3d8}.ours{fill:#e3f4e6}"
    "line,path{stroke:#334e68;stroke-width:1.8;fill:none}.lane{stroke:#bcccdc;stroke-dasharray:4 4}"
    ".stopped{stroke:#b44d12;stroke-dasharray:6 4}.late{fill:#8f3d0e}"
)
_HEADS: Final = "".join(
    f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" '
    f'orient="auto-start-reverse"><path d="{shape}" style="{style}"/></marker>'
    for name, shape, style in (
        ("head", "M0 0 L10 5 L0 10 z", "fill:#334e68;stroke:none"),
        ("cross", "M1 1 L9 9 M9 1 L1 9", "stroke:#b44d12;stroke-width:2"),
    )
)


class Box(NamedTuple):
    """A box with a title and a few small lines; ``kind`` is its color: ours, store, log or nothing."""

    x: int
    y: int
    width: int
    height: int
    title: str
    lines: tuple[str, ...] = ()
    kind: str = ""

    def drawn(self) -> str:
        """Return it as SVG."""
        middle = self.x + self.width // 2
        top = self.y + self.height // 2 + 5 - 9 * len(self.lines)
        texts = [_text(middle, top, self.title, "strong" if self.lines else "name")]
        texts += [_text(middle, top + 19 * row, line) for row, line in enumerate(self.lines, 1)]
        frame = (
            f'<rect class="{self.kind}" x="{self.x}" y="{self.y}" width="{self.width}" '
            f'height="{self.height}" rx="6"/>'
        )
        return frame + "".join(texts)


def _text(x: int, y: int, text: str, kind: str = "small", anchor: str = "middle") -> str:
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def _arrow(start: int, end: int, y: int, *, stopped: bool = False) -> str:
    kind, head = (' class="stopped"', "cross") if stopped else ("", "head")
    return f'<line{kind} x1="{start}" y1="{y}" x2="{end}" y2="{y}" marker-end="url(#{head})"/>'


def _sheet(height: int, title: str, parts: Iterable[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img"><title>{escape(title)}</title><style>{_STYLE}</style>'
        f'<defs>{_HEADS}</defs><rect class="paper" width="{WIDTH}" height="{height}"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def overview() -> str:
    """docs/overview.svg: who writes what, and who reads it."""
    rows = (
        (
            Box(10, 14, 150, 104, "Agents", ("publish a command", "and continue"), "ours"),
            Box(240, 14, 172, 104, "Kafka: commands", ("the log; a session", "is in one partition"), "log"),
            ((162, 238, "publish"), (412, 488, "fetch")),
        ),
        (
            Box(10, 138, 150, 104, "Subscribers", ("billing, dashboards,", "evaluators"), "ours"),
            Box(240, 138, 172, 104, "Kafka: results", ("one event for each", "command, in order"), "log"),
            ((238, 162, "react"), (488, 414, "append")),
        ),
        (
            Box(10, 262, 150, 104, "Readers", ("console, CLI, agents", "that resume"), "ours"),
            Box(240, 262, 172, 104, "Postgres", ("sessions and their", "checkpoints"), "store"),
            ((238, 162, "read"), (488, 414, "commit")),
        ),
    )
    worker = Box(
        490, 14, 140, 352, "Worker", ("owns partitions,", "applies every", "command", "exactly once"), "ours"
    )
    parts = [worker.drawn()]
    for left, right, arrows in rows:
        parts += [left.drawn(), right.drawn()]
        for start, end, label in arrows:
            y = left.y + left.height // 2
            parts += [_arrow(start, end, y), _text((start + end) // 2, y - 10, label)]
    return _sheet(
        380,
        "Agents publish commands to Kafka, workers apply them to Postgres, subscribers get results",
        parts,
    )


class Step(NamedTuple):
    """An arrow between two lanes with its words, or a late write that is stopped."""

    start: int
    end: int
    text: str
    stopped: bool = False


_LANES: Final = (
    ("former owner", "ours"),
    ("Postgres", "store"),
    ("results", "log"),
    ("commands", "log"),
    ("new owner", "ours"),
)
_STEPS: Final[Sequence[Step]] = (
    Step(4, 1, "1. Raise the epoch; read position, anchor, and outbox."),
    Step(0, 1, "A late commit has the old epoch, and fails.", stopped=True),
    Step(4, 2, "2. Append the fence record under a new producer epoch."),
    Step(0, 2, "A late append is rejected by the broker.", stopped=True),
    Step(2, 4, "3. Read the results up to the fence: what was emitted already?"),
    Step(3, 4, "4. Compare the log with the anchor: is it still the same?"),
    Step(4, 2, "5. Append what was committed, but not emitted."),
    Step(3, 4, "6. Consume from the position on."),
)


def takeover() -> str:
    """docs/takeover.svg: how a partition changes hands, step by step as in docs/design.md."""
    first, apart, top, step = 66, 127, 56, 58
    parts = [
        Box(first + apart * lane - 58, 10, 116, 36, name, (), kind).drawn()
        for lane, (name, kind) in enumerate(_LANES)
    ]
    for row, (start, end, text, stopped) in enumerate(_STEPS):
        y = top + step * row
        # Words have a separate line, on which no lane is drawn.
        parts.append(_text(10, y + 19, text, "late" if stopped else "step", "start"))
        parts += [
            f'<line class="lane" x1="{x}" y1="{y + 28}" x2="{x}" y2="{y + step - 2}"/>'
            for x in range(first, first + apart * len(_LANES), apart)
        ]
        parts.append(_arrow(first + apart * start, first + apart * end, y + 42, stopped=stopped))
    return _sheet(top + step * len(_STEPS) + 6, "How a partition changes hands", parts)


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
