"""``waypost console``: the console in the browser, by itself."""

import asyncio
import contextlib
import logging
import signal
import webbrowser
from typing import Annotated

from cyclopts import Parameter, validators

from waypost_worker.cli.support.options import NOTHING_GIVEN, Common, TenantFlag
from waypost_worker.cli.support.output import DONE, note, show_fields
from waypost_worker.config.settings import Settings

_PORT = validators.Number(gte=0, lte=65_535)


def console(
    *,
    host: Annotated[str | None, Parameter(help="address to listen on (default: 127.0.0.1)")] = None,
    port: Annotated[
        int | None,
        Parameter(
            help="port to listen on, 0 for any (default: the first free one from 8650)", validator=_PORT
        ),
    ] = None,
    tenant: TenantFlag = None,
    open_: Annotated[bool, Parameter(name="--open", help="open the console in your browser")] = False,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Show sessions, and change them, in a browser.

    Runs until Ctrl-C. The console shows sessions, checkpoints and differences,
    and what a change would do before it is made. It reads Postgres and
    publishes commands like an agent; a role that may only read is enough.

    The printed link lets one browser in, once. Each use prints the next one. Any other address than
    loopback needs WAYPOST_CONSOLE_AUTH=token, oidc or proxy.

    With --tenant, it shows and changes the sessions of that tenant only.

    For example:

      waypost console --open
      waypost console --port 8700
      waypost console --tenant acme
    """
    settings = common.settings(console_host=host, console_port=port, console_tenant=tenant)
    return asyncio.run(_run(settings, open_, common))


async def _run(settings: Settings, open_: bool, common: Common) -> int:
    from waypost_worker.console.serve import console as serving

    log_failures()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with serving(settings, tell_link) as link:
        if common.output == "table":
            note(f"The console is at {link}\nCtrl-C ends it.")
        else:
            show_fields({"link": link}, common.output)
        if open_:
            open_browser(link)
        await stop.wait()
    return DONE


def log_failures() -> None:
    """Have pages that fail unexpectedly written to stderr."""
    logger = logging.getLogger("waypost.console")
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler())


def tell_link(link: str) -> None:
    """Print the link for the next browser."""
    note(f"The link was used. For another browser: {link}")


def open_browser(link: str) -> None:
    """Open a link, if there is a browser."""
    with contextlib.suppress(webbrowser.Error):
        webbrowser.open(link)
