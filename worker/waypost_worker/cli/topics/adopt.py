"""``waypost topics adopt``: move a whole database to new topics."""

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from waypost.wire.signing import encode_key
from waypost_worker.cli.support.authority_key import read_public
from waypost_worker.cli.support.connections import kafka_client, kafka_errors, postgres_errors
from waypost_worker.cli.support.databases import connected
from waypost_worker.cli.support.logs import command_logs, command_partitions
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common
from waypost_worker.cli.support.output import DONE, USAGE, CommandError, confirm, note, show_fields
from waypost_worker.cli.topics.drained import look, what_is_left
from waypost_worker.config.settings import Settings


def adopt(
    *,
    dry_run: Annotated[bool, Parameter(help="check everything, and change nothing")] = False,
    yes: Annotated[bool, Parameter(help="don't ask")] = False,
    from_topic_prefix: Annotated[
        str | None,
        Parameter(help="prefix of the previous, drained topics; the new ones may have more partitions"),
    ] = None,
    authority_key: Annotated[
        Path | None,
        Parameter(help="file with the public or private key of an authority that replaces the current one"),
    ] = None,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Move the database to new, empty topics.

    For when the topics are lost and Postgres is whole, or was rebuilt from
    results. Sessions, checkpoints and the memory of command ids stay; from
    then on the new topics (--topic-prefix) are the log. Stop all workers
    before. Results that were never emitted are lost, and counted.

    With --from-topic-prefix, the command proves that the previous topics are drained, and the new ones may have more
    partitions: sessions move to where their keys lead. See docs/partitions.md.

    The authority stays unless --authority-key names another. Use that if a
    private key is lost, or if somebody else named an authority first.

    For example:

      waypost topics create --topic-prefix second
      waypost topics adopt --topic-prefix second --dry-run
      waypost topics adopt --topic-prefix wide --from-topic-prefix waypost
    """
    settings = common.settings()
    if from_topic_prefix == settings.topic_prefix:
        raise CommandError("--from-topic-prefix names the new topics: it must name the previous ones", USAGE)
    key = None if authority_key is None else encode_key(read_public(authority_key))
    if not dry_run:
        confirm(f"the database will belong to the topics of {settings.topic_prefix!r} and no others", yes)
    done = asyncio.run(_adopt(settings, from_topic_prefix, key, dry_run))
    show_fields(
        {**asdict(done), "topic_prefix": settings.topic_prefix, "changed": not dry_run}, common.output
    )
    if done.unanswered:
        note(f"{done.unanswered} results were never emitted, and {'would be' if dry_run else 'are'} lost")
    return DONE


async def _drained(settings: Settings, prefix: str, partitions: int) -> dict[int, int]:
    """Return where the partitions of the previous topics end. Raise CommandError unless everything is applied and
    answered.
    """
    found = await look(settings.model_copy(update={"topic_prefix": prefix}), moved_to=partitions)
    if left := what_is_left(found):
        raise CommandError(f"the topics of {prefix!r} are not drained: {left}. Nothing was changed")
    return {one.partition: one.applied for one in found}


async def _adopt(settings: Settings, before: str | None, authority: str | None, dry_run: bool) -> Any:
    from waypost_worker.kafka.results_log import KafkaResultsLog
    from waypost_worker.postgres.adopt import adopt as apply
    from waypost_worker.postgres.migrate import SchemaError, check_schema

    async with kafka_errors(settings), postgres_errors(settings):
        partitions = await command_partitions(settings)
        drained = None if before is None else await _drained(settings, before, partitions)
        client = kafka_client(settings)
        async with command_logs(settings, partitions, client) as logs:
            for partition, log in logs.items():
                results = KafkaResultsLog(client, settings.topics, partition)
                try:
                    ends = (await log.bounds())[1], (await results.bounds())[1]
                finally:
                    await results.close()
                if ends != (0, 0):
                    raise CommandError(
                        f"partition {partition} of the topics of {settings.topic_prefix!r} is not empty: "
                        f"{ends[0]} commands, {ends[1]} results. Nothing was changed; create new ones with "
                        "'waypost topics create --topic-prefix NEW'"
                    )
        try:
            # It rewrites every row.
            async with connected(settings, patiently=True) as databases:
                for database in databases:
                    await check_schema(database, settings.postgres_schema)
                return await apply(
                    databases.connections,
                    settings.postgres_schema,
                    partitions,
                    dry_run=dry_run,
                    drained=drained,
                    authority=authority,
                )
        except SchemaError as error:
            raise CommandError(str(error)) from None
