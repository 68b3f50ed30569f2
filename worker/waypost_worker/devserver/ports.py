"""Loopback TCP ports that stay ours while a server is down.

The operating system chooses a port, and a socket that is bound but never listens keeps it. A server that sets
SO_REUSEADDR (as Kafka and Postgres do) can bind to the same port; no other process gets it, neither to listen nor as
the source port of an outgoing connection. So a killed server comes back on the same port.
"""

from __future__ import annotations

import socket

from waypost_worker.devserver.errors import DevServerError

HOST = "127.0.0.1"


class Port:
    """One reserved TCP port on 127.0.0.1."""

    def __init__(self, number: int = 0, *, or_other: bool = False) -> None:
        """Reserve a port: this one, or any free one if it is 0 or if it is taken and ``or_other`` is set.

        Raises:
            DevServerError: The port is taken.
        """
        try:
            self._socket = _bound(number)
        except OSError as error:
            if not or_other:
                raise DevServerError(
                    f"port {number} on {HOST} can't be used ({error.strerror}). Nothing was started. "
                    "Stop the program that listens there, or let the system choose with port 0."
                ) from error
            self._socket = _bound(0)
        self.number: int = self._socket.getsockname()[1]

    def release(self) -> None:
        """Give the port back to the system."""
        self._socket.close()


def _bound(number: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((HOST, number))
    except OSError:
        made.close()
        raise
    return made
