"""The console's addresses. A session id is one segment of a path, whatever characters it has. Pure."""

from typing import Final
from urllib.parse import quote, unquote_to_bytes, urlencode

_DOTS: Final = frozenset((".", ".."))
_MARK: Final = "~"
_LONGEST_PAGE: Final = 1000


def segment(identifier: str) -> str:
    """Return an id as one segment of a path.

    Browsers resolve ``.`` and ``..`` even if they are percent-encoded, so such ids get a mark.
    """
    marked = identifier in _DOTS or identifier.startswith(_MARK)
    return quote(_MARK + identifier if marked else identifier, safe="")


def from_segment(raw: str) -> str | None:
    """Return the id that a segment stands for; None if it is not UTF-8."""
    try:
        text = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        return None
    return text.removeprefix(_MARK)


def session(session_id: str, page: str = "", **query: str | int | None) -> str:
    """Return the address of a session, or of a page of it."""
    return with_query(f"/sessions/{segment(session_id)}{page and f'/{page}'}", **query)


def checkpoint(session_id: str, number: int, page: str = "", **query: str | int | None) -> str:
    """Return the address of a checkpoint, or of a page of it."""
    return session(session_id, f"{number}{page and f'/{page}'}", **query)


def with_query(path: str, **query: str | int | None) -> str:
    """Return a path with those parameters that are neither None nor empty."""
    given = {name: value for name, value in query.items() if value is not None and value != ""}
    return f"{path}?{urlencode(given)}" if given else path


def own_page(path: str) -> str:
    """Return a path if a browser that follows it stays in the console, and else the first page's."""
    stays = path.isascii() and path.isprintable() and path.startswith("/") and path[1:2] not in ("/", "\\")
    return path if stays and len(path) <= _LONGEST_PAGE else "/"
