"""The commands, and how their failures look: one line on stderr, exit code 1, or 2 for usage and settings."""

import logging
import os
import sys
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from waypost import __version__
from waypost.errors import WaypostError
from waypost_worker.cli import dev, doctor, publish, rejected, schema, sessions, tail, topics
from waypost_worker.cli.common import Common
from waypost_worker.cli.output import DONE, FAILED, USAGE, CommandError, fail, note, show_rows
from waypost_worker.settings import Settings, SettingsError, config_origin, masked_dsn

app = App(
    name="waypost",
    version=__version__,
    help="Checkpoints for LLM agents: Kafka in, Postgres behind, one result event per command.",
    help_format="plaintext",
)
app.command(dev.dev)
app.command(topics.app)
app.command(publish.publish)
app.command(publish.defaults)
app.command(sessions.app)
app.command(tail.tail)
app.command(rejected.app)
app.command(doctor.doctor)
app.command(schema.app)
config = App(name="config", help="Look at the settings.")
app.command(config)


@app.command
def worker(
    *,
    migrate: Annotated[bool | None, Parameter(help="apply pending migrations first")] = None,
    log_level: Annotated[str | None, Parameter(help="debug, info, warning or error")] = None,
    common: Common | None = None,
) -> int:
    """Run one worker until SIGTERM or SIGINT; a second signal ends it at once.

    For example:

      waypost worker --migrate --bootstrap-servers kafka:9092
    """
    from waypost_worker.service import run_worker
    from waypost_worker.telemetry.logs import configure_logs

    settings = (common or Common()).settings(migrate=migrate, log_level=log_level)
    configure_logs(settings.log_level, settings.log_format)
    return run_worker(settings)


@app.command
def migrate(
    *,
    dry_run: Annotated[bool, Parameter(help="show what is pending and change nothing")] = False,
    common: Common | None = None,
) -> int:
    """Bring the database's schema up to this version. Safe to run from several places at once.

    For example:

      waypost migrate --dry-run
    """
    import asyncpg

    from waypost_worker.cli.common import run
    from waypost_worker.postgres.migrate import migrate as apply
    from waypost_worker.postgres.migrate import pending

    common = common or Common()
    settings = common.settings()

    async def work() -> list[Any]:
        connection = await asyncpg.connect(
            settings.postgres_dsn.get_secret_value(), timeout=settings.request_timeout
        )
        try:
            return await (pending(connection) if dry_run else apply(connection))
        finally:
            await connection.close()

    rows = [
        {"number": found.number, "name": found.name, "sha256": found.sha256[:12]} for found in run(work())
    ]
    show_rows(rows, common.output, ("number", "name", "sha256"), "nothing is pending")
    if rows and common.output == "table":
        note(f"{len(rows)} pending" if dry_run else f"{len(rows)} applied")
    return DONE


@config.command
def show(*, common: Common | None = None) -> int:
    """Print every setting, its value and where it came from; secrets are masked.

    For example:

      waypost config show -o json
    """
    common = common or Common()
    settings = common.settings()
    rows = []
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        if name == "postgres_dsn":
            value = masked_dsn(value.get_secret_value())
        flag = getattr(common, name, None) is not None
        rows.append(
            {
                "setting": name,
                "value": value,
                "from": "flag" if flag else config_origin(name),
                "meaning": field.description,
            }
        )
    show_rows(rows, common.output, ("setting", "value", "from"), "")
    return DONE


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit."""
    tokens = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in tokens
    tokens = [token for token in tokens if token != "--debug"]  # noqa: S105
    # What clients say while they try again is not for a person at a terminal.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    logging.getLogger("waypost").addHandler(logging.NullHandler())
    try:
        code = app(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        fail(f"{error} (see 'waypost --help')", USAGE)
    except SettingsError as error:
        fail(str(error), USAGE)
    except CommandError as error:
        fail(str(error), error.code)
    except KeyboardInterrupt:
        note("")
        raise SystemExit(130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(DONE) from None
    except Exception as error:
        if debug:
            raise
        fail(_one_line(error), FAILED)
    raise SystemExit(code if isinstance(code, int) else DONE)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, WaypostError) and text:
        return text
    if isinstance(error, TimeoutError):
        text = text or "Kafka or Postgres did not answer in time"
    return f"{type(error).__name__}: {text} (run again with --debug for the traceback)"
