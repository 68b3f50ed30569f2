"""Whether the texts of a picture can be read: they fit into it, and none lies on another."""

from itertools import combinations
from typing import Final
from xml.etree.ElementTree import Element

SVG: Final = "{http://www.w3.org/2000/svg}"
# Wider than the letters of usual fonts, in parts of their size.
_LETTER: Final = {False: 0.55, True: 0.6}


def overlapping_texts(root: Element) -> list[str]:
    """The texts that leave the picture, and the pairs that overlap. Sizes are attributes of each text."""
    boxes = []
    for element in root.iter(f"{SVG}text"):
        size, x, y = (float(element.get(name) or 0) for name in ("font-size", "x", "y"))
        width = _LETTER[element.get("font-weight") == "600"] * size * len(element.text or "")
        left = x - {"start": 0, "middle": width / 2, "end": width}[element.get("text-anchor") or ""]
        boxes.append((left, y - 0.75 * size, left + width, y + 0.2 * size, element.text or ""))
    width, height = (float(root.get(name) or 0) for name in ("width", "height"))
    found = [text for left, _, right, bottom, text in boxes if left < 0 or right > width or bottom > height]
    for one, other in combinations(boxes, 2):
        if one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]:
            found.append(f"{one[4]} / {other[4]}")
    return found
