"""``waypost commands skip``: the way past a command at which every owner of its partition fails.

The order of the steps makes it safe. Once Postgres holds the request, no owner can commit the command, because the
epoch is raised and a new owner waits for the order. Only then is the order written to the log. So there is never an
order for a command that was applied, and the steps can be interrupted and repeated at any point.
"""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import orjson
from cyclopts import App, Parameter, validators

from waypost.model.authority import Authority
from waypost.model.partition_state import PartitionState
from waypost.model.retention import RetentionPolicy
from waypost.wire.encode import skip_body
from waypost.wire.envelope import glimpse
from waypost.wire.event_types import EventType
from waypost_worker.cli.support.authority_key import Signer, read_signer
from waypost_worker.cli.support.connections import kafka_client, kafka_errors, postgres_errors, query
from waypost_worker.cli.support.databases import connected
from waypost_worker.cli.support.logs import command_partitions, log_maker
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common
from waypost_worker.cli.support.output import DONE, CommandError, confirm, show_fields
from waypost_worker.cli.support.partition_commands import Outcome as Sent
from waypost_worker.cli.support.partition_commands import applied, check_signer, send
from waypost_worker.config.settings import Settings

if TYPE_CHECKING:
    from waypost.wire.envelope import KafkaRecord

app = App(name="commands", help="Skip a command at which a partition is refused.")


@app.command
def skip(
    partition: Annotated[int, Parameter(help="the refused partition", validator=validators.Number(gte=0))],
    offset: Annotated[
        int,
        Parameter(help="offset of the command at which it is refused", validator=validators.Number(gte=0)),
    ],
    /,
    *,
    reason: Annotated[str, Parameter(help="reason to show in the command's rejection")],
    authority_key: Annotated[Path, Parameter(help="file with the private key of the partition's authority")],
    yes: Annotated[bool, Parameter(help="don't ask")] = False,
    timeout: Annotated[
        float, Parameter(help="seconds to wait for the worker", validator=validators.Number(gt=0))
    ] = 90,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Reject one command unread, with the reason that you give.

    Use this if a command makes its owner fail repeatedly, so that the partition is refused. The alert, /readyz and the
    log name its offset. No other command can be skipped. The order to skip is a signed command in the log, so replay
    and verify follow it. It can't be undone: fix the worker instead if you can. If this command is interrupted, run it
    again.

    For example:

      waypost commands skip 3 1841 --reason "bug 77" --authority-key next.pem
    """
    skip_body(offset, bytes(16), reason)  # says what is wrong with the reason
    settings = common.settings()
    signer = read_signer(authority_key)
    found = asyncio.run(_skip(settings, partition, offset, reason, signer, yes, timeout))
    show_fields(found, common.output)
    return DONE


class _Standing(NamedTuple):
    """The state of a partition, and the command at which it is refused."""

    state: PartitionState
    next_offset: int
    record: "KafkaRecord"


async def _skip(
    settings: Settings, partition: int, offset: int, reason: str, signer: Signer, yes: bool, timeout: float
) -> dict[str, Any]:
    from waypost_worker.partition.anchor import anchor_of
    from waypost_worker.partition.skips import OrderScan, concerns_partition

    async with kafka_errors(settings), postgres_errors(settings), connected(settings) as databases:
        count = await command_partitions(settings)
        if partition >= count:
            raise CommandError(f"the topic has partitions 0 to {count - 1}. Nothing was changed")
        database = databases.of(partition)
        log = log_maker(settings, partition)()
        try:
            standing = await _standing(settings, database, log, partition, offset)
            if concerns_partition(standing.record):
                raise CommandError(
                    f"the command at offset {offset} concerns the whole partition, and such commands can't "
                    "be skipped, because they decide who may skip commands. Nothing was changed; use a "
                    "worker "
                    "version without the error"
                )
            ahead = OrderScan(standing.state, partition, count, standing.next_offset)
            given = (await ahead.advance(log)).of(standing.record)
        finally:
            await log.close()
        authority = ahead.state.authority
        if given is None:
            _check_authority(authority, partition, signer)
        command_id, session_id = glimpse(standing.record)
        confirm(
            f"command {command_id} of session {session_id!r} will be answered with a rejection and never applied",
            yes,
        )
        await _request(settings, database, partition, offset)
        if given is None:
            body = skip_body(offset, anchor_of(standing.record), reason)
            (sent,) = await send(settings, EventType.SKIP, {partition: body}, {partition: authority}, signer)
            position = sent.offset
        else:
            position = given.position
    await _require_skipped(settings, partition, offset, timeout)
    return {
        "partition": partition,
        "offset": offset,
        "session_id": session_id,
        "command_id": command_id,
        "state": "skipped",
        "reason": reason if given is None else given.reason,
        "order": f"{partition}/{position}",
    }


async def _standing(settings: Settings, database: Any, log: Any, partition: int, offset: int) -> _Standing:
    """Raise CommandError unless the partition is refused at exactly this command."""
    from waypost_worker.postgres.rows import authority_of, policy_of

    row = await database.fetchrow(query("commands/standing", settings.postgres_schema), partition)
    if row is None or row["next_offset"] > offset:
        stands = "no command" if row is None else f"all commands up to offset {row['next_offset'] - 1}"
        raise CommandError(
            f"Postgres has applied {stands} of partition {partition}, and only the command at which a partition is "
            "refused can be skipped. Nothing was changed"
        )
    if row["blocked_offset"] != offset:
        blocked = row["blocked_offset"]
        is_blocked = blocked is not None and blocked >= row["next_offset"]
        where = (
            f"is refused at offset {blocked}, not at {offset}"
            if is_blocked
            else "is not refused at a command"
        )
        raise CommandError(
            f"partition {partition} {where}, and only the command at which a partition is refused can be skipped. "
            "Nothing was changed. A worker names it in /readyz and in its log after the third failure"
        )
    records = await log.read(offset, offset + 1)
    if not records:
        raise CommandError(f"the command topic holds no command at offset {offset}. Nothing was changed")
    await _check_unanswered(settings, partition, offset)
    policy, commands, authority = (
        None if row[name] is None else row[name].encode()
        for name in ("default_policy", "default_commands", "authority")
    )
    state = PartitionState(
        policy_of(policy) or RetentionPolicy(), orjson.loads(commands or b"[]"), authority_of(authority)
    )
    return _Standing(state, row["next_offset"], records[0])


async def _check_unanswered(settings: Settings, partition: int, offset: int) -> None:
    """Raise CommandError if the results topic answers the command but Postgres does not know it, because it was
    restored.
    """
    from waypost_worker.kafka.results_log import KafkaResultsLog
    from waypost_worker.partition.tail import command_offset
    from waypost_worker.recovery.log_scan import last_result

    results = KafkaResultsLog(kafka_client(settings), settings.topics, partition)
    try:
        last = await last_result(results, *await results.bounds())
    finally:
        await results.close()
    if last is not None and (answered := command_offset(last)) >= offset:
        raise CommandError(
            f"the results topic of partition {partition} answers commands up to offset {answered}: the command was "
            "applied, and Postgres was restored since. Nothing was changed; use a worker version that can apply it"
        )


def _check_authority(authority: Authority, partition: int, signer: Signer) -> None:
    if authority.key is None:
        raise CommandError(
            f"partition {partition} has no authority, and only an authority can skip commands. Nothing was "
            "changed; name one with 'waypost authority set', which takes effect for this command immediately"
        )
    check_signer({partition: authority}, signer)


async def _request(settings: Settings, database: Any, partition: int, offset: int) -> None:
    """Store the request, after which no owner applies the command. Raise CommandError if an owner already has."""
    from waypost_worker.postgres.statements import statement

    epoch = await database.fetchval(statement("request_skip", settings.postgres_schema), partition, offset)
    if epoch is None:
        raise CommandError(f"partition {partition} has continued. Nothing was changed")
    try:
        await _check_unanswered(settings, partition, offset)
    except CommandError:
        await database.execute(query("commands/withdraw", settings.postgres_schema), partition, offset)
        raise


async def _require_skipped(settings: Settings, partition: int, offset: int, timeout: float) -> None:
    try:
        (found,) = await applied(settings, [Sent(partition, offset, "")], timeout)
    except CommandError:
        raise CommandError(
            f"the order is in the log, but no worker has passed offset {offset} of partition {partition} "
            f"within {timeout:g} s. The command will be skipped; check that a worker is running"
        ) from None
    if found.code != "skipped":
        raise CommandError(
            f"partition {partition} continued, but the command at offset {offset} was not skipped "
            f"({found.code}); see the worker's log"
        )
