"""``waypost session diff``: two checkpoints, or two sessions, by what is in them."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from cyclopts import Parameter

from waypost_worker.cli.session.changes import show_changes
from waypost_worker.cli.support.connections import reading
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common, TenantFlag
from waypost_worker.cli.support.output import DONE, CommandError, Format, note, show_json, show_rows
from waypost_worker.operations.differences import SIGNS, contents, differences, shown

if TYPE_CHECKING:
    from waypost.model.checkpoint import Checkpoint
    from waypost.reader.client import Reader
    from waypost.reader.session import SessionReader


def diff(
    before: Annotated[str, Parameter(help="checkpoint or session id")],
    after: Annotated[str, Parameter(help="checkpoint or session id to compare with")],
    /,
    *,
    tenant: TenantFlag = None,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Show what changed between two checkpoints, or two sessions.

    Checkpoints are compared by name, data and metadata, value by value (paths are JSON Pointers). Sessions are compared
    checkpoint by checkpoint: forked, copied or imported ones with their origin, others by number.

    For example:

      waypost session diff session-1:3 session-1:9
      waypost session diff session-1 session-1-retry -o json
    """
    return asyncio.run(_diff(common, tenant, before, after))


async def _diff(common: Common, tenant: str | None, before: str, after: str) -> int:
    async with reading(common.settings(), tenant) as reader:
        sessions = [await reader.session_info(each) is not None for each in (before, after)]
        if all(sessions):
            rows = await _sessions(reader.session(before), reader.session(after))
            _show_sessions(rows, before, after, common.output)
            return DONE
        if any(sessions):
            which, other = (before, after) if sessions[0] else (after, before)
            raise CommandError(
                f"{which!r} is a session and {other!r} is not: compare two checkpoints or two sessions"
            )
        pair = [await _checkpoint(reader, each) for each in (before, after)]
    changes = [shown(change) for change in differences(*map(contents, pair))]
    if common.output == "json":
        show_json({"before": pair[0].id, "after": pair[1].id, "changes": changes})
    elif common.output == "table" and not changes:
        note("no difference")
    else:
        show_changes(changes, common.output)
    return DONE


async def _checkpoint(reader: "Reader", identifier: str) -> "Checkpoint":
    found = await reader.session(identifier.rpartition(":")[0]).get(identifier)
    if found is None:
        raise CommandError(f"neither a session nor a checkpoint {identifier!r} is known")
    return found


class _Light(NamedTuple):
    """A checkpoint without its data, which may be large."""

    id: str
    imported_id: str | None
    number: int
    name: str
    content: int


async def _light(session: "SessionReader") -> list[_Light]:
    return [
        _Light(
            each.id,
            each.imported_id,
            each.number,
            each.name,
            hash((each.name, each.raw_data, each.raw_metadata)),
        )
        async for each in session
    ]


async def _sessions(before: "SessionReader", after: "SessionReader") -> list[dict[str, Any]]:
    old, new = await _light(before), await _light(after)
    partners = _partners(old, new)
    paired = {one.id for one in partners.values()}
    rows: list[dict[str, Any]] = [
        {"change": "removed", "before": one.id, "after": None, "name": one.name}
        for one in old
        if one.id not in paired
    ]
    for other in new:
        partner = partners.get(other.id)
        if partner is None:
            rows.append({"change": "added", "before": None, "after": other.id, "name": other.name})
        elif partner.content != other.content:
            rows += await _changed(before, partner, after, other)
    return rows


async def _changed(
    before: "SessionReader", one: _Light, after: "SessionReader", other: _Light
) -> list[dict[str, Any]]:
    old, new = await before.get(one.id), await after.get(other.id)
    if old is None or new is None:
        return []  # retention has just removed it, so there is nothing to compare
    changes = [shown(change) for change in differences(contents(old), contents(new))]
    row = {"change": "changed", "before": one.id, "after": other.id, "name": other.name, "changes": changes}
    return [row] if changes else []


def _partners(before: list[_Light], after: list[_Light]) -> dict[str, _Light]:
    """For ids in ``after``, where they come from; by number where nothing in one session comes from the other."""
    known: dict[str, _Light] = {}
    for one in before:
        known |= {identity: one for identity in (one.imported_id, one.id) if identity is not None}
    partners = {
        other.id: known[identity]
        for other in after
        for identity in (other.id, other.imported_id)
        if identity in known
    }
    if partners:
        return partners
    numbers = {one.number: one for one in before}
    return {other.id: numbers[other.number] for other in after if other.number in numbers}


def _show_sessions(rows: list[dict[str, Any]], before: str, after: str, output: Format) -> None:
    if output == "json":
        show_json({"before": before, "after": after, "checkpoints": rows})
    elif output == "jsonl":
        show_rows(rows, output, ())
    else:
        table = [{**row, "": SIGNS[row["change"]], "what": _what(row.get("changes", ()))} for row in rows]
        columns = ("", "before", "after", "name", "what")
        show_rows(table, output, columns, "no difference", wrap=("name", "what"))


def _what(changes: Any) -> str:
    paths = [f"{SIGNS[change['change']]}{change['path']}" for change in changes]
    return " ".join(paths[:4]) + (f" and {len(paths) - 4} more" if len(paths) > 4 else "")
