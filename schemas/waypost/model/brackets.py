"""The nesting depth of a JSON text, derived from its brackets without a loop over bytes. Pure.

A text of 1 MB can have a million brackets, and Python needs tens of milliseconds to look at each. So the innermost
pairs are removed in bulk, as long as that makes the text much shorter, and only the rest is counted run by run: a text
that can't be shortened much has long runs, and thus few.
"""

import re
from itertools import accumulate
from operator import sub
from typing import Final

_BRACES_ALIKE: Final = bytes.maketrans(b"[]", b"{}")
_ALL_BUT_MARKS: Final = bytes(byte for byte in range(256) if byte not in b'{}[]"')
_ALL_BUT_OPENINGS: Final = bytes(byte for byte in range(256) if byte not in b"[{")
_STRINGS: Final = re.compile(rb'"[^"]*+"')
_RUNS: Final = re.compile(rb"\{+|\}+")
_WORTH_IT: Final = 10  # remove pairs while a tenth of the text goes with them


def nests_deeper(raw: bytes, levels: int) -> bool:
    """Return whether valid JSON nests deeper than ``levels``: ``{}`` is 1 level, ``[[1]]`` 2, a bare number 0."""
    # Counting is cheap and settles nearly all.
    if len(raw.translate(None, _ALL_BUT_OPENINGS)) <= levels:
        return False
    return heights(nesting_marks(raw, False)[0])[1] > levels


def nesting_marks(text: bytes, in_string: bool) -> tuple[bytes, bool]:
    """Return the brackets of a piece of JSON outside of its strings, as ``{`` and ``}``, and whether it ends in one.

    ``in_string`` says whether the piece begins within a string; a piece must not end in the middle of an escape.
    """
    if b"\\" in text:
        text = text.replace(rb"\\", b"").replace(rb"\"", b"")  # every quote left starts or ends a string
    marks = text.translate(_BRACES_ALIKE, _ALL_BUT_MARKS)
    if b'"' in marks:
        # Two quotes in a row end where they began, inside a string or outside.
        ends_in_string = in_string ^ (marks.count(b'"') & 1 == 1)
        marks = (b'"' + marks if in_string else marks) + (b'"' if ends_in_string else b"")
        marks = marks.replace(b'""', b"")
        return _STRINGS.sub(b"", marks) if marks else marks, ends_in_string
    return b"" if in_string else marks, in_string


def heights(marks: bytes) -> tuple[int, int]:
    """Return the lowest and the highest level that a row of ``{`` and ``}`` comes to, from level 0 before it.

    The highest is right only for a row that is balanced.
    """
    removed = 0
    while marks:
        left = marks.replace(b"{}", b"")
        gone = len(marks) - len(left)
        if gone:
            removed += 1
        if gone * _WORTH_IT < len(marks):
            marks = left
            break
        marks = left
    runs = _RUNS.findall(marks)
    if not runs:
        return 0, removed
    sizes = [0] * marks.startswith(b"}") + list(map(len, runs))
    opening, closing = sizes[::2], sizes[1::2]
    # The level behind each run of opening brackets, and behind each of closing ones.
    peaks = list(accumulate(map(sub, opening[1:], closing), initial=opening[0]))
    lowest = min(map(sub, peaks, closing), default=0)
    return min(0, lowest), max(peaks) + removed
