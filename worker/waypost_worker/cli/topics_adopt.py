"""``waypost topics adopt``: a whole database goes on where its topics are lost."""

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

from cyclopts import Parameter

from waypost_worker.cli.common import NOTHING_GIVEN, Common
from waypost_worker.cli.confirm import confirm
from waypost_worker.cli.databases import connected
from waypost_worker.cli.output import DONE, CommandError, note, show_fields
from waypost_worker.cli.reach import kafka_connection, kafka_errors, postgres_errors
from waypost_worker.cli.recovering import command_logs, command_partitions
from waypost_worker.settings import Settings


def adopt(
    *,
    dry_run: Annotated[bool, Parameter(help="check everything and change nothing")] = False,
    yes: Annotated[bool, Parameter(help="don't ask")] = False,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Make the database go on with new, empty topics.

    For when the topics are lost and Postgres is whole, or was rebuilt from
    results. Sessions, checkpoints and the memory of command ids stay; from
    then on the new topics (--topic-prefix) are the log. Stop all workers
    before. Results that were never emitted are lost, and counted.

    For example:

      waypost topics create --topic-prefix second
      waypost topics adopt --topic-prefix second --dry-run
    """
    settings = common.settings()
    if not dry_run:
        confirm(f"the database will belong to the topics of {settings.topic_prefix!r} and no others", yes)
    done = asyncio.run(_adopt(settings, dry_run))
    show_fields(
        {**asdict(done), "topic_prefix": settings.topic_prefix, "changed": not dry_run}, common.output
    )
    if done.unanswered:
        note(f"{done.unanswered} results were never emitted, and {'would be' if dry_run else 'are'} lost")
    return DONE


async def _adopt(settings: Settings, dry_run: bool) -> Any:
    from waypost_worker.kafka.results_log import KafkaResultsLog
    from waypost_worker.postgres.adopt import adopt as apply
    from waypost_worker.postgres.migrate import SchemaError, check_schema

    async with kafka_errors(settings), postgres_errors(settings):
        partitions = await command_partitions(settings)
        async with command_logs(settings, partitions) as logs:
            for partition, log in logs.items():
                results = KafkaResultsLog(kafka_connection(settings), settings.topics, partition)
                try:
                    ends = (await log.bounds())[1], (await results.bounds())[1]
                finally:
                    await results.close()
                if ends != (0, 0):
                    raise CommandError(
                        f"partition {partition} of the topics of {settings.topic_prefix!r} is not empty: "
                        f"{ends[0]} commands, {ends[1]} results. Nothing was changed; make new ones with "
                        "'waypost topics create --topic-prefix NEW'"
                    )
        try:
            # It rewrites every row.
            async with connected(settings, patiently=True) as databases:
                for database in databases:
                    await check_schema(database, settings.postgres_schema)
                return await apply(
                    databases.connections, settings.postgres_schema, partitions, dry_run=dry_run
                )
        except SchemaError as error:
            raise CommandError(str(error)) from None
