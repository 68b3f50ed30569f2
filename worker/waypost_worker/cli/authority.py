"""``waypost authority``: choose who may send commands about whole partitions."""

import asyncio
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from waypost.model.times import format_micros
from waypost.wire.encode import authority_body
from waypost.wire.event_types import EventType
from waypost.wire.signing import encode_key
from waypost_worker.cli.support.authority_key import (
    KeyFlag,
    Signer,
    create_key,
    read_public,
    read_signer,
)
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common, OutputFlag
from waypost_worker.cli.support.output import DONE, confirm, note, show_fields, show_rows
from waypost_worker.cli.support.partition_commands import (
    applied,
    authorities,
    check_signer,
    require_accepted,
    send,
    shown_key,
)
from waypost_worker.cli.support.sending import TimeoutFlag
from waypost_worker.config.settings import Settings

app = App(name="authority", help="Choose who may set the default retention and skip commands.")
_COLUMNS = ("partition", "key", "signed_at")


@app.command(name="create-key")
def create(
    file: Annotated[Path, Parameter(help="file to write the private key to; must not exist")],
    /,
    *,
    output: OutputFlag = "table",
) -> int:
    """Make a key pair: the private key in FILE, which only you can read.

    Store the file with your other secrets: anyone who has it can sign, and if
    it is lost, nobody can. Nothing is sent.

    For example:

      waypost authority create-key authority.pem
    """
    public = create_key(file)
    show_fields({"private_key": str(file), "public_key": encode_key(public)}, output)
    return DONE


@app.command
def show(*, common: Common = NOTHING_GIVEN) -> int:
    """Show the public key of each partition's authority, as applied by workers.

    For example:

      waypost authority show
      waypost authority show -o json
    """
    found = asyncio.run(authorities(common.settings()))
    rows = [
        {
            "partition": partition,
            "key": shown_key(one.key),
            "signed_at": None if one.signed_at is None else format_micros(one.signed_at),
        }
        for partition, one in found.items()
    ]
    show_rows(rows, common.output, _COLUMNS, "the topic has no partitions")
    if any(one.key is None for one in found.values()):
        note(
            "partitions without a key accept commands about them from anyone: see 'waypost authority set "
            "--help'"
        )
    return DONE


@app.command(name="set")
def set_authority(
    file: Annotated[Path, Parameter(help="PEM file with the new key, public or private")],
    /,
    *,
    authority_key: KeyFlag = None,
    yes: Annotated[bool, Parameter(help="don't ask")] = False,
    timeout: TimeoutFlag = 10,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Accept commands about whole partitions only from the holder of a key.

    These are 'waypost defaults', 'waypost commands skip' and 'waypost authority'.
    One command goes to every partition, so the key is part of the log. To
    replace a key, sign with the current one: --authority-key. Use each key in
    one deployment only. For new topics, use 'waypost topics create
    --authority-key', so that nobody else can set a key first.

    For example:

      waypost authority set authority.pem
      waypost authority set next.pem --authority-key authority.pem
    """
    public = read_public(file)
    signer = None if authority_key is None else read_signer(authority_key)
    confirm("after this, nobody can set the default retention if the private key is lost", yes)
    return asyncio.run(_configure(common.settings(), public, signer, timeout, common))


@app.command
def remove(
    *,
    authority_key: Annotated[Path, Parameter(help="file with the current authority's private key")],
    yes: Annotated[bool, Parameter(help="don't ask")] = False,
    timeout: TimeoutFlag = 10,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Let every publisher give commands about whole partitions again.

    For example:

      waypost authority remove --authority-key next.pem
    """
    signer = read_signer(authority_key)
    confirm("after this, every agent can change the retention of all sessions", yes)
    return asyncio.run(_configure(common.settings(), None, signer, timeout, common))


async def _configure(
    settings: Settings, key: bytes | None, signer: Signer | None, timeout: float, common: Common
) -> int:
    found = await authorities(settings)
    check_signer(found, signer)
    bodies = dict.fromkeys(found, authority_body(key))
    sent = await send(settings, EventType.CONFIGURE_AUTHORITY, bodies, found, signer)
    require_accepted(await applied(settings, sent, timeout))
    rows = [{"partition": one.partition, "key": shown_key(key), "command_id": one.command_id} for one in sent]
    show_rows(rows, common.output, ("partition", "key"))
    return DONE
