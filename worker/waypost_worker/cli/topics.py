"""``waypost topics``: make and check the two topics."""

from dataclasses import asdict
from typing import Annotated

from cyclopts import App, Parameter

from waypost_worker.cli.common import Common, run
from waypost_worker.cli.output import DONE, FAILED, note, show_rows

app = App(name="topics", help="Make and check the two topics.")


@app.command
def create(
    *,
    partitions: Annotated[int, Parameter(help="of each topic; can't be changed later")] = 12,
    skip_zombie_test: Annotated[
        bool, Parameter(help="don't test that the cluster fences old owners")
    ] = False,
    common: Common | None = None,
) -> int:
    """Make the topics that are missing, after a test that the cluster fences old owners.

    For example:

      waypost topics create --partitions 24
    """
    from waypost_worker.kafka.connection import Connection
    from waypost_worker.kafka.topics import create_topics
    from waypost_worker.kafka.zombie import zombie_test

    common = common or Common()
    settings = common.settings()
    connection = Connection(settings.bootstrap_servers, settings.request_timeout)

    async def work() -> list[str]:
        if not skip_zombie_test:
            verdict = await zombie_test(connection, settings.topics)
            if not verdict.fenced:
                note(f"waypost: {verdict.message}")
                raise SystemExit(FAILED)
        return await create_topics(connection, settings.topics, partitions)

    made = run(work())
    rows = [{"topic": name, "partitions": partitions} for name in made]
    show_rows(rows, common.output, ("topic", "partitions"), "both topics exist already")
    return DONE


@app.command
def check(*, common: Common | None = None) -> int:
    """Compare the topics and the brokers with what the protocol needs; exit 1 if something is wrong.

    For example:

      waypost topics check -o json
    """
    from waypost_worker.kafka.connection import Connection
    from waypost_worker.kafka.topics import check_topics

    common = common or Common()
    settings = common.settings()
    connection = Connection(settings.bootstrap_servers, settings.request_timeout)
    findings = run(check_topics(connection, settings.topics))
    show_rows(
        [asdict(found) for found in findings], common.output, ("level", "subject", "message", "mend"), ""
    )
    return FAILED if any(found.level == "error" for found in findings) else DONE
