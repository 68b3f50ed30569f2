"""Commands about whole partitions: whom they must be signed by, sending them, and what became of each."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import uuid4

from waypost.model.authority import Authority
from waypost.model.times import format_micros
from waypost.statements import load_statement
from waypost.wire.envelope import command_headers
from waypost.wire.event_types import EventType
from waypost.wire.signing import encode_key, encode_signature, signed_message
from waypost_worker.cli.support.authority_key import Signer
from waypost_worker.cli.support.connections import (
    kafka_connection,
    kafka_errors,
    query,
    reading,
    require_topics,
    topic_partitions,
)
from waypost_worker.cli.support.databases import connected
from waypost_worker.cli.support.output import USAGE, CommandError
from waypost_worker.config.settings import Settings

_SOURCE: Final = b"/waypost/cli"


class Outcome(NamedTuple):
    """The outcome of one command. ``code`` and ``message`` are those of a rejection."""

    partition: int
    offset: int
    command_id: str
    code: str | None = None
    message: str | None = None


async def authorities(settings: Settings) -> dict[int, Authority]:
    """The authority of each partition of the topic, as far as workers have come."""
    from waypost_worker.postgres.rows import authority_of

    await require_topics(settings)
    count = (await topic_partitions(settings))[settings.topics.commands]
    found = dict.fromkeys(range(count), Authority())
    async with connected(settings) as databases:
        for database in databases:
            rows = await database.fetch(query("support/authorities", settings.postgres_schema))
            found |= {
                row["partition"]: authority_of(
                    None if row["authority"] is None else row["authority"].encode()
                )
                for row in rows
                if row["partition"] < count
            }
    return found


def check_signer(found: Mapping[int, Authority], signer: Signer | None) -> None:
    """Raise CommandError if a partition would reject commands signed with this key, or unsigned ones."""
    keys = {authority.key for authority in found.values()} - {None}
    if not keys:
        return
    if signer is None:
        raise CommandError(
            "these partitions have an authority, which must sign the command. Nothing was sent. Pass its "
            "private key with --authority-key",
            USAGE,
        )
    other = [str(partition) for partition, one in found.items() if one.key not in (None, signer.public)]
    if other:
        raise CommandError(
            f"the key in {signer.path} is not that of the authority of partition {', '.join(other)}. Nothing was sent. "
            "'waypost authority show' lists the public keys"
        )


async def send(
    settings: Settings,
    kind: EventType,
    bodies: Mapping[int, bytes],
    found: Mapping[int, Authority],
    signer: Signer | None,
) -> list[Outcome]:
    """Publish a command to each of these partitions, signed if there is an authority. Return where they landed."""
    from aiokafka import AIOKafkaProducer

    sent: list[tuple[int, str, Any]] = []
    async with kafka_errors(settings):
        producer = AIOKafkaProducer(**kafka_connection(settings).options(), enable_idempotence=True)
        await producer.start()
        try:
            for partition, body in bodies.items():
                command_id, headers = _headers(kind, partition, body, found[partition], signer)
                future = await producer.send(
                    settings.topics.commands, body, partition=partition, headers=headers
                )
                sent.append((partition, command_id, future))
            records = await asyncio.gather(*(future for _, _, future in sent))
        finally:
            await producer.stop()
    return [
        Outcome(partition, record.offset, command_id)
        for (partition, command_id, _), record in zip(sent, records, strict=True)
    ]


def _headers(
    kind: EventType, partition: int, body: bytes, authority: Authority, signer: Signer | None
) -> tuple[str, list[tuple[str, bytes]]]:
    command_id, now = str(uuid4()), time.time_ns() // 1000
    if authority.signed_at is not None:
        now = max(now, authority.signed_at + 1)  # this machine's clock may be behind that of an earlier one
    signature = None
    if signer is not None and authority.key is not None:
        message = signed_message(partition, kind.value, command_id, now, body)
        signature = encode_signature(signer.sign(message))
    taken = format_micros(now).encode()
    return command_id, command_headers(command_id, _SOURCE, kind.wire, taken, None, signature)


async def applied(settings: Settings, sent: Sequence[Outcome], timeout: float) -> list[Outcome]:
    """Wait until workers have applied all of them; with the reason where one was rejected."""
    async with reading(settings) as reader:
        for one in sent:
            try:
                await reader.wait_for((one.partition, one.offset), timeout)
            except TimeoutError as error:
                raise CommandError(
                    f"Kafka has the commands, but {error}. They will be applied; check that a worker is "
                    "running"
                ) from None
    places = {(one.partition, one.offset): one for one in sent}
    async with connected(settings) as databases:
        for database, listed in databases.grouped(places):
            columns = [[place[0] for place in listed], [place[1] for place in listed]]
            rejected = load_statement("waypost_worker.operations", "rejected_at", settings.postgres_schema)
            for row in await database.fetch(rejected, *columns):
                place = row["partition"], row["offset"]
                places[place] = places[place]._replace(code=row["code"], message=row["message"])
    return list(places.values())


def require_accepted(outcomes: Sequence[Outcome]) -> None:
    """Raise CommandError if any was rejected."""
    for one in outcomes:
        if one.code is not None:
            raise CommandError(
                f"the command at offset {one.offset} of partition {one.partition} was rejected: {one.code}: "
                f"{one.message}"
            )


def shown_key(key: bytes | None) -> str | None:
    """A public key for people and programs."""
    return None if key is None else encode_key(key)
