"""``waypost topics``: make and check the two topics."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import App, Parameter, validators

from waypost.model.authority import Authority
from waypost.wire.encode import authority_body
from waypost.wire.event_types import EventType
from waypost_worker.cli.support.authority_key import read_public
from waypost_worker.cli.support.connections import kafka_connection, kafka_errors, topic_partitions
from waypost_worker.cli.support.findings import show_findings
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common
from waypost_worker.cli.support.output import DONE, CommandError, note, show_rows
from waypost_worker.cli.support.partition_commands import send
from waypost_worker.cli.topics.acls import acls
from waypost_worker.cli.topics.adopt import adopt
from waypost_worker.cli.topics.drained import drained
from waypost_worker.config.settings import Settings

app = App(name="topics", help="Create, check, update or adopt the two topics; print ACLs.")
app.command(adopt)
app.command(acls)
app.command(drained)
_PARTITIONS: Final = 12
_DAY_MS: Final = 24 * 3600 * 1000
_Days = Annotated[float | None, Parameter(validator=validators.Number(gt=0))]
# Less would let the record that fences former owners leave the topic before it is renewed.
_FenceDays = Annotated[float | None, Parameter(validator=validators.Number(gte=1))]


@app.command
def create(
    *,
    partitions: Annotated[
        int | None,
        Parameter(
            help=f"partitions of each topic; can't be changed later (default: {_PARTITIONS})",
            validator=validators.Number(gte=1, lte=10_000),
        ),
    ] = None,
    replicas: Annotated[
        int | None,
        Parameter(
            help="replicas of each partition (default: 3, or the number of brokers)",
            validator=validators.Number(gte=1, lte=100),
        ),
    ] = None,
    commands_retention_days: Annotated[
        _Days, Parameter(help="days to keep commands (default: indefinitely)")
    ] = None,
    results_retention_days: Annotated[
        _FenceDays, Parameter(help="days to keep results, at least 1 (default: 7)")
    ] = None,
    authority_key: Annotated[
        Path | None, Parameter(help="file with the public or private key of the new topics' authority")
    ] = None,
    skip_zombie_test: Annotated[
        bool, Parameter(help="skip the test that the cluster fences old owners")
    ] = False,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Make the topics that are missing, with the settings that the protocol needs.

    Before that, the zombie test shows on a separate topic that this cluster fences former owners; if it does not,
    nothing is created. Existing topics are left unchanged: see 'waypost topics check'.

    With --authority-key, the first command in every partition names the key
    that may set the default retention (see 'waypost authority'). Otherwise,
    the first client to publish such a command decides.

    For example:

      waypost topics create --partitions 24
      waypost topics create --topic-prefix third --authority-key authority.pem
    """
    settings = common.settings()
    retention = {
        name: round(days * _DAY_MS)
        for name, days in (
            ("commands_retention_ms", commands_retention_days),
            ("results_retention_ms", results_retention_days),
        )
        if days is not None
    }
    key = None if authority_key is None else read_public(authority_key)
    rows = asyncio.run(
        make_topics(
            settings,
            partitions,
            replicas=replicas,
            retention=retention,
            zombie_test=not skip_zombie_test,
            authority=key,
        )
    )
    show_rows(rows, common.output, ("topic", "partitions", "state"))
    return DONE


async def make_topics(
    settings: Settings,
    partitions: int | None,
    *,
    default: int = _PARTITIONS,
    replicas: int | None = None,
    retention: Mapping[str, int] | None = None,
    zombie_test: bool = True,
    authority: bytes | None = None,
) -> list[dict[str, Any]]:
    """Make what is missing; each topic with its partitions and whether it was made.

    ``default`` is the count where none is asked for and no topic exists. CommandError if an existing topic has
    another count than asked for, or if the cluster does not fence.
    """
    from waypost_worker.kafka.fencing_check import zombie_test as test
    from waypost_worker.kafka.topics import create_topics

    present = await topic_partitions(settings)
    for name, count in present.items():
        if partitions not in (None, count):
            raise CommandError(
                f"the topic {name!r} exists with {count} partitions, not {partitions}, and that can't be changed: "
                "sessions would move to other partitions. Nothing was created; for another count, use "
                "another --topic-prefix, as docs/partitions.md says"
            )
    connection = kafka_connection(settings)
    if authority is not None and settings.topics.commands in present:
        raise CommandError(
            f"the topic {settings.topics.commands!r} already exists, so --authority-key comes too late for its first "
            "commands. Nothing was created; use 'waypost authority set'"
        )
    wanted = partitions or max(present.values(), default=default)
    async with kafka_errors(settings):
        if zombie_test:
            verdict = await test(connection, settings.topics)
            if not verdict.fenced:
                raise CommandError(f"{verdict.message}. Nothing was made")
        made = await create_topics(
            connection, settings.topics, wanted, replicas=replicas, **(retention or {})
        )
    if authority is not None:
        await _name_authority(settings, authority, wanted)
    return [
        {"topic": name, "partitions": present.get(name, wanted), "state": "made" if name in made else "kept"}
        for name in (settings.topics.commands, settings.topics.results)
    ]


async def _name_authority(settings: Settings, key: bytes, partitions: int) -> None:
    """Let the first command of every partition name the authority; CommandError if one came before."""
    nobody = dict.fromkeys(range(partitions), Authority())
    bodies = dict.fromkeys(nobody, authority_body(key))
    sent = await send(settings, EventType.CONFIGURE_AUTHORITY, bodies, nobody, None)
    late = [str(one.partition) for one in sent if one.offset > 0]
    if late:
        raise CommandError(
            f"somebody published to partition {', '.join(late)} before the command that names the "
            "authority. Both topics were created; delete them and start again, or see 'waypost authority "
            "show' once a worker has run"
        )


@app.command
def update(
    *,
    dry_run: Annotated[bool, Parameter(help="show what would be changed, and change nothing")] = False,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Change settings of existing topics that break the protocol.

    It fixes what 'waypost topics check' reports as errors, such as topics of
    version 0.1, whose results carry the workers' time. Other settings stay
    unchanged. Changes take effect immediately, and workers may be running.

    For example:

      waypost topics update --dry-run
      waypost topics update
    """
    settings = common.settings()

    async def change() -> list[Any]:
        from waypost_worker.kafka.topics import update_topics

        async with kafka_errors(settings):
            return await update_topics(kafka_connection(settings), settings.topics, dry_run=dry_run)

    updates = asyncio.run(change())
    columns = ("topic", "setting", "before", "now")
    show_rows([{name: getattr(one, name) for name in columns} for one in updates], common.output, columns)
    note(f"{len(updates)} settings {'would be' if dry_run else 'were'} changed")
    return DONE


@app.command
def check(*, common: Common = NOTHING_GIVEN) -> int:
    """Compare topics and brokers with what the protocol needs; exit code 1 if
    something is wrong.

    'waypost doctor' checks this and more.

    For example:

      waypost topics check -o json
    """
    settings = common.settings()

    async def examine() -> list[Any]:
        from waypost_worker.kafka.topics import check_topics

        async with kafka_errors(settings):
            return await check_topics(kafka_connection(settings), settings.topics)

    return show_findings(asyncio.run(examine()), common.output)
