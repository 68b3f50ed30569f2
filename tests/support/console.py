"""A console as a test uses it: a process of its own, its link, and requests without a browser."""

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from tests.support.cli import CommandLine, Started
from tests.support.timeouts import PATIENCE

#: For clients that don't use TLS: the system's list of authorities takes 36 ms of CPU to read.
NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_FORM_TOKEN = re.compile(r'name="form_token" value="([0-9a-f]*)"')
_FIELD = re.compile(r'<input type="hidden" name="(\w+)" value="([^"]*)">')


@dataclass
class Console:
    """A running console."""

    process: Started
    link: str

    @property
    def address(self) -> str:
        return self.link.partition("login")[0].rstrip("/")

    @contextmanager
    def client(self, link: str | None = None) -> Iterator[httpx.Client]:
        """Somebody who came in by the link."""
        origin = {"origin": self.address}
        with httpx.Client(
            base_url=self.address, timeout=PATIENCE, headers=origin, verify=NO_AUTHORITIES
        ) as client:
            assert "You are in" in client.get(link or self.link).text
            yield client


@contextmanager
def running_console(line: CommandLine, settings: Mapping[str, str] | None = None) -> Iterator[Console]:
    """A console of a deployment, with settings besides its own."""
    started = CommandLine(line.directory, {**line.settings, **(settings or {})}).start(
        "console", "--port", "0"
    )
    try:
        said = started.until("The console is at ", PATIENCE)
        yield Console(started, said.split()[-1])
    finally:
        started.end()


def fields_of(page: str) -> dict[str, str]:
    """The hidden fields of a page's last form but that of the footer."""
    return dict(_FIELD.findall(page))


def form_token_of(page: str) -> str:
    """The token that the forms of a page carry."""
    found = _FORM_TOKEN.search(page)
    assert found is not None, page
    return found[1]
