"""The search syntax for sessions: a prefix of the id, ``name:`` of a checkpoint, and metadata. Pure."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

#: Activity in an address: how far back, and its label.
ACTIVITY: Final = {
    "": ("any activity", None),
    "1h": ("active in the last hour", timedelta(hours=1)),
    "1d": ("active in the last day", timedelta(days=1)),
    "7d": ("active in the last 7 days", timedelta(days=7)),
    "30d": ("active in the last 30 days", timedelta(days=30)),
}
_TERM: Final = re.compile(r'([^\s:"/]+):("[^"]*"|\S+)')


@dataclass(frozen=True, slots=True)
class Search:
    """Filters of the list of sessions; all of them count."""

    prefix: str = ""
    name: str | None = None
    metadata: dict[str, Any] | None = None

    @property
    def looks_inside(self) -> bool:
        """Return whether the search needs checkpoints and not only sessions."""
        return self.name is not None or self.metadata is not None


def parse_search(text: str) -> Search:
    """Return what was asked for.

    ``name:plan_made`` is a checkpoint's name, ``model:small`` a member of metadata, and a word without a colon, or with
    one behind a slash, the beginning of a session id.
    """
    name: str | None = None
    metadata: dict[str, Any] = {}
    words = []
    for word in re.findall(r'(?:[^\s:"/]+:"[^"]*"|\S)+', text):
        term = _TERM.fullmatch(word)
        if term is None:
            words.append(word)
            continue
        key, value = term[1], term[2].strip('"')
        if key == "name":
            name = value
        elif key == "id":
            words.append(value)
        else:
            metadata[key] = value if term[2].startswith('"') else _value(value)
    return Search(" ".join(words), name, metadata or None)


def active_since(activity: str, now: datetime) -> datetime | None:
    """Return the time since which a session must have been active, or None if any time will do."""
    back = ACTIVITY.get(activity, ("", None))[1]
    return None if back is None else now - back


def _value(text: str) -> Any:
    """Numbers, true, false and null are what they look like; anything else is a string."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return text if isinstance(found, dict | list) else found
