"""Brokers' addresses as a user writes them: ``host:port``, several with commas between or in a list. Pure."""

import re
from collections.abc import Iterable
from typing import Final

from waypost.errors import InvalidArgumentError, quoted

DEFAULT_PORT: Final = 9092
# [::1]:9092 | host:9092 | host, or an IPv6 address without a port
_ADDRESS: Final = re.compile(
    r"\[(?P<v6>[0-9A-Fa-f:.]+)\](?::(?P<p6>\d{1,5}))?|(?P<host>[^\s:/\[\]]+)(?::(?P<p>\d{1,5}))?"
)
_BARE_V6: Final = re.compile(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")


def broker_addresses(servers: str | Iterable[str]) -> list[tuple[str, int]]:
    """Return hosts and ports. Raise InvalidArgumentError if an address is invalid; the message names it."""
    listed = servers.split(",") if isinstance(servers, str) else _listed(servers)
    found = [_address(each) for each in listed]
    if not found:
        raise InvalidArgumentError(
            "bootstrap_servers is empty: pass 'host:port', or several with commas between"
        )
    return found


def _listed(servers: object) -> list[str]:
    if not isinstance(servers, list | tuple) or not all(isinstance(each, str) for each in servers):
        raise InvalidArgumentError(
            f"bootstrap_servers must be a string, 'host:port' or several with commas between, not {quoted(servers)}"
        )
    return list(servers)


def _address(text: str) -> tuple[str, int]:
    text = text.strip()
    if _BARE_V6.fullmatch(text):
        return text, DEFAULT_PORT
    match = _ADDRESS.fullmatch(text)
    port = DEFAULT_PORT if match is None else int(match["p6"] or match["p"] or DEFAULT_PORT)
    if match is None or not 0 < port < 65536 or not _can_be_looked_up(match["v6"] or match["host"]):
        raise InvalidArgumentError(
            f"bootstrap_servers: {quoted(text)} is not the address of a broker, 'host:port'"
        )
    return match["v6"] or match["host"], port


def _can_be_looked_up(host: str) -> bool:
    """Return whether the resolver accepts this as a name. For others, it raises errors that clients retry
    indefinitely.
    """
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return host.isprintable()
