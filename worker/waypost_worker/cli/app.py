"""The commands, and how a failure looks: one line on stderr; exit code 1, or 2 for usage and settings.

A command's module is imported when the command is run; ``waypost --help`` needs none of them.
"""

import logging
import sys
import traceback
from typing import Final

from cyclopts import App, CycloptsError, Group, Parameter

from waypost import __version__
from waypost.errors import printable, shortened
from waypost_worker.cli.support.output import (
    DONE,
    FAILED,
    USAGE,
    CommandError,
    StdoutClosedError,
    note,
    show_wide_tables,
)

_RUN: Final = Group("Run", sort_key=1)
_USE: Final = Group("Use", sort_key=2)
_LOOK: Final = Group("Look after", sort_key=3)
_OTHER: Final = Group("Other", sort_key=4)
_DEBUG: Final = "--debug"
_WIDE: Final = "--wide"
_INTERRUPTED: Final = 130

# Name, location, and the first line of its help.
COMMANDS: Final = {
    _RUN: (
        ("dev", "dev:dev", "Kafka, Postgres and workers on this machine, until Ctrl-C."),
        ("worker", "worker.app:worker", "Run one worker until SIGTERM or Ctrl-C."),
        ("console", "console:console", "Show sessions, and change them, in a browser."),
        ("migrate", "migrate:migrate", "Bring the database's schema up to this version."),
        ("topics", "topics.app:app", "Create, check, update or adopt the two topics; print ACLs."),
        ("authority", "authority:app", "Choose who may set the default retention and skip commands."),
    ),
    _USE: (
        ("publish", "publish:publish", "Publish commands; --wait shows their results."),
        ("tail", "tail:tail", "Watch results as they arrive."),
        (
            "session",
            "session.app:app",
            "Show sessions, set their policies, move them and roll them back.",
        ),
        ("rejected", "rejected.app:app", "List rejected commands; retry or purge them."),
        (
            "results",
            "results.app:app",
            "Find results that no worker wrote, and ignore them.",
        ),
        ("import", "import_.app:app", "Import threads from other checkpointers."),
        ("expire", "expire.app:expire", "Remove the checkpoints of sessions that have been idle."),
        ("erase", "erase.app:erase", "Erase a session for good, and list what still holds its bytes."),
        ("defaults", "defaults:defaults", "Set the retention of sessions without their own policy."),
    ),
    _LOOK: (
        ("commands", "commands.app:app", "Skip a command at which a partition is refused."),
        ("replay", "recovery.replay:replay", "Rebuild Postgres from the command topic."),
        ("verify", "recovery.verify:verify", "Prove that Postgres matches the command topic."),
        ("doctor", "doctor.app:doctor", "Check Kafka, Postgres, clocks and keys, and suggest fixes."),
        ("keys", "keys.app:app", "Create a key store, look at keys, and rotate what wraps them."),
        ("spool", "spool:app", "Send the commands that publishers left in a spool directory."),
        ("snapshot", "snapshot:app", "Take, list, check, restore and prune snapshots."),
        ("config", "config:app", "Show the settings and where they come from."),
        ("schema", "schema:app", "Write or check the contract as JSON Schema and AsyncAPI files."),
        ("completion", "completion:completion", "Print a script that completes commands and flags."),
    ),
}


def build(chosen: str | None = None) -> App:
    """Build the command line. ``chosen`` is the command that will run; its own help then comes from its module."""
    app = App(
        name="waypost",
        version=__version__,
        help=(
            "Checkpoints for LLM agents: Kafka in, Postgres behind, one result event per command.\n\n"
            "Try 'waypost dev' first. Every command has --help with examples, and -o json for programs; "
            "--wide keeps each row of a table on one line, and --debug shows the traceback of an error."
        ),
        help_format="plaintext",
        result_action="return_value",
        default_parameter=Parameter(
            negative=(), show_default=lambda value: None if value in (None, False) else value
        ),
    )
    for group, listed in COMMANDS.items():
        for place, (name, path, said) in enumerate(listed):
            app.command(
                f"waypost_worker.cli.{path}",
                name=name,
                # A text given here would replace the one that the command's own --help shows.
                help=None if name == chosen else said,
                group=group,
                sort_key=place,
            )
    for flag in ("--help", "--version"):
        app[flag].group = _OTHER
    return app


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    debug = _DEBUG in tokens
    if debug:
        tokens.remove(_DEBUG)
    if wide := _WIDE in tokens:
        tokens.remove(_WIDE)
    show_wide_tables(wide)
    # Messages of clients that keep retrying are not meant for a person at a terminal.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    logging.getLogger("waypost").addHandler(logging.NullHandler())
    try:
        chosen = next((token for token in tokens if not token.startswith("-")), None)
        code = build(chosen)(tokens, exit_on_error=False, print_error=False)
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None
    except StdoutClosedError:
        raise SystemExit(DONE) from None
    except Exception as error:
        if debug:
            note("".join(traceback.format_exception(error)).rstrip())
        line, code = _failure(error, debug)
        # Keep both ends: the problem, and what to do.
        note(f"waypost: {shortened(printable(shortened(' '.join(line.split()))))}")
    raise SystemExit(code if isinstance(code, int) else DONE)


def _failure(error: Exception, debug: bool) -> tuple[str, int]:
    """Return the message and the exit code."""
    from waypost.errors import InvalidCommandError, WaypostError
    from waypost_worker.config.settings import SettingsError
    from waypost_worker.partition.ports import OwnerError

    match error:
        case CommandError():
            return str(error), error.code
        case CycloptsError():
            error.verbose = False
            command = " ".join(["waypost", *(error.command_chain or ())])
            return f"{error} See '{command} --help'.", USAGE
        case SettingsError() | InvalidCommandError():
            return str(error), USAGE
        case WaypostError() | OwnerError():
            return str(error) or type(error).__name__, FAILED
        case ModuleNotFoundError():
            return f"{error}: install the extra that has it, as in pip install 'waypost[dev]'", FAILED
    more = "" if debug else f" (run again with {_DEBUG} for the traceback)"
    return f"{type(error).__name__}: {error}{more}", FAILED
