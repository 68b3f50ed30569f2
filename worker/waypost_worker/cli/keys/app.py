"""``waypost keys``: make a key store and wrapping keys, look at session keys, wrap them again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import App, Parameter

from waypost.errors import EncryptionError
from waypost.wire.encode import check_session_id
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common, OutputFlag
from waypost_worker.cli.support.output import (
    DONE,
    FAILED,
    USAGE,
    CommandError,
    Format,
    note,
    show_fields,
    show_rows,
)
from waypost_worker.config.keys import key_settings
from waypost_worker.config.settings import Settings

if TYPE_CHECKING:
    from waypost.encryption.key_store import KeyStore, StoredKey
    from waypost.encryption.wrapping import KeyWrapper

app = App(name="keys", help="Create a key store, look at keys, and rotate what wraps them.")
_COLUMNS: Final = ("session_id", "key_id", "state", "wrapping_key", "created_at", "erased_at")


@app.command(name="create-wrapping-key")
def create_wrapping_key(
    file: Annotated[Path, Parameter(help="file of wrapping keys; must not exist, unless --add is given")],
    /,
    *,
    add: Annotated[bool, Parameter(help="put the new key in front of those in FILE")] = False,
    output: OutputFlag = "table",
) -> int:
    """Make a wrapping key: 32 random bytes in FILE, which only you can read.

    Session keys are wrapped with the first key in the file, and unwrapped with
    any of them. To rotate, --add a new one, distribute the file, run 'waypost
    keys rotate', and remove the older key from the file and its copies.

    Keep a copy: without the wrapping key, all that is encrypted is lost.

    For example:

      waypost keys create-wrapping-key wrapping.key
      waypost keys create-wrapping-key wrapping.key --add
    """
    from waypost_worker.cli.keys.files import write_wrapping_key

    names = write_wrapping_key(file, add=add)
    show_fields({"file": str(file), "wrapping_key": names[0], "older": names[1:]}, output)
    return DONE


@app.command
def init(*, common: Common = NOTHING_GIVEN) -> int:
    """Make the key store that the settings name, once for each deployment.

    keys_directory names a directory on this machine, keys_dsn a Postgres, where
    this creates the schema waypost_keys. Use another Postgres than that of the
    sessions: its backups would bring deleted keys back. A store that exists
    stays as it is.

    For example:

      export WAYPOST_KEYS_DIRECTORY=/var/lib/waypost/keys
      waypost keys init
    """
    settings = common.settings()
    shared = _shares_the_database(settings)

    async def make() -> tuple[str, bool, str]:
        async with _store(settings) as store:
            made = await store.initialize()
            return store.described, made, await store.deployment()

    described, made, deployment = asyncio.run(make())
    show_fields({"key_store": described, "made": made, "deployment": deployment}, common.output)
    if shared:
        note(f"warning: {shared}")
    return DONE


@app.command(name="list")
def list_keys(
    *,
    prefix: Annotated[str, Parameter(help="only sessions whose ids begin with this")] = "",
    erased: Annotated[bool, Parameter(help="only tombstones of deleted keys")] = False,
    most: Annotated[int, Parameter(name="--limit", help="show at most this many; 0: all")] = 50,
    common: Common = NOTHING_GIVEN,
) -> int:
    """List session keys, in the order in which the store keeps them.

    Shows which wrapping key wrapped each, and no key. A tombstone stands for a
    key that was deleted.

    For example:

      waypost keys list --prefix customer-7/
      waypost keys list --erased --limit 0 -o jsonl
    """

    async def gather() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        async with _store(common.settings()) as store:
            async for key in _all_keys(store):
                if key.session_id.startswith(prefix) and (key.erased or not erased):
                    rows.append(_shown(key))
                    if 0 < most < len(rows):
                        break
        return rows

    rows = asyncio.run(gather())
    more = 0 < most < len(rows)
    show_rows(rows[: most or None], common.output, _COLUMNS, "there are no keys")
    if more:
        note(f"these are the first {most}; --limit 0 shows all")
    return DONE


@app.command
def show(
    session: Annotated[str, Parameter(help="session id", allow_leading_hyphen=True)],
    /,
    *,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Show a session's key, and whether it can be unwrapped here. The key itself is never shown.

    Exit code 1 if there is none, if it was deleted, or if it can't be unwrapped.

    For example:

      waypost keys show session-1
    """
    check_session_id(session)
    settings = common.settings()

    async def look() -> tuple[dict[str, Any] | None, str | None]:
        async with _store(settings) as store:
            found = (await store.find([session])).get(session)
            if found is None:
                return None, None
            problem = None if found.erased else await _problem(store, _wrapper(settings), found)
            return _shown(found), problem

    fields, problem = asyncio.run(look())
    if fields is None:
        raise CommandError(f"the key store holds no key of session {session!r}")
    show_fields(
        {**fields, "can_be_unwrapped": fields["state"] == "wrapped" and problem is None}, common.output
    )
    if problem is not None:
        note(problem)
    return DONE if problem is None and fields["state"] == "wrapped" else FAILED


@app.command
def rotate(
    *,
    dry_run: Annotated[bool, Parameter(help="count the keys to wrap again; change nothing")] = False,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Wrap all session keys with the newest wrapping key, in place.

    Agents and readers keep working during the rotation, if they have both
    wrapping keys. Data is not encrypted again: its keys stay the same. It can be
    stopped and started again; keys that are wrapped with the newest one are
    skipped. Exit code 1 if a key could not be unwrapped: it stays as it is, so
    keep its wrapping key.

    For example:

      waypost keys create-wrapping-key wrapping.key --add
      waypost keys rotate --dry-run
      waypost keys rotate
    """
    settings = common.settings()
    return asyncio.run(_rotate(settings, dry_run, common.output))


async def _rotate(settings: Settings, dry_run: bool, output: Format) -> int:
    from waypost_worker.cli.keys.rotation import Rotation
    from waypost_worker.cli.support.progress import WorkProgress

    async with _store(settings) as store:
        rotation = await Rotation.begin(store, _wrapper(settings))
        stale = 0
        async for key in _all_keys(store):
            stale += rotation.is_stale(key)
        if dry_run:
            show_fields({"newest": rotation.newest, "would_wrap": stale}, output)
            return DONE
        with WorkProgress("Wrapping", stale, "keys") as progress:
            async for key in _all_keys(store):
                if rotation.is_stale(key):
                    await rotation.wrap_again(key)
                    progress.advanced(0, 1)
    show_fields(
        {"newest": rotation.newest, "wrapped": rotation.wrapped, "failed": len(rotation.failed)}, output
    )
    for problem in rotation.failed[:10]:
        note(problem)
    return FAILED if rotation.failed else DONE


async def _all_keys(store: "KeyStore") -> "AsyncIterator[StoredKey]":
    after = None
    while page := await store.page(after):
        for key in page:
            yield key
        after = page[-1].session_id


@asynccontextmanager
async def _store(settings: Settings) -> "AsyncIterator[KeyStore]":
    found = key_settings(settings)
    if found is None:
        raise CommandError(
            "no key store is named: set WAYPOST_KEYS_DIRECTORY or WAYPOST_KEYS_DSN (docs/encryption.md)",
            USAGE,
        )
    from waypost.encryption.settings import make_store

    store = make_store(found)
    try:
        yield store
    finally:
        await store.close()


def _wrapper(settings: Settings) -> "KeyWrapper":
    from waypost.encryption.settings import make_wrapper

    found = key_settings(settings)
    assert found is not None  # there is a store
    return make_wrapper(found)


async def _problem(store: "KeyStore", wrapper: "KeyWrapper", key: "StoredKey") -> str | None:
    from waypost_worker.cli.keys.rotation import unwrapped

    try:
        await unwrapped(store, wrapper, key)
    except EncryptionError as error:
        return str(error)
    return None


def _shown(key: "StoredKey") -> dict[str, Any]:
    return {
        "session_id": key.session_id,
        "key_id": key.key_id or None,
        "state": "erased" if key.erased else "wrapped",
        "wrapping_key": key.wrapping_key or None,
        "created_at": key.created_at,
        "erased_at": key.erased_at,
    }


def _shares_the_database(settings: Settings) -> str | None:
    from waypost_worker.operations.keys import shared_database

    found = key_settings(settings)
    return None if found is None else shared_database(found.dsn, settings.dsns)
