"""Print the result of a command."""

from typing import TYPE_CHECKING, Any

from waypost_worker.cli.support.output import DONE, FAILED, Format, show_fields
from waypost_worker.operations.results import for_programs, short

if TYPE_CHECKING:
    from waypost.publisher.waiter import CommandResult


def removal_note(result: "CommandResult") -> str | None:
    """Return a note for people if retention removed checkpoints with this command."""
    session, removed = result.body.get("session_id"), len(result.body.get("removed", ()))
    if not removed or short(result.type) not in ("created", "imported"):
        return None
    return (
        f"retention removed {removed} checkpoint{'' if removed == 1 else 's'} of {session!r}: "
        f"see 'waypost session policy {session}'"
    )


def kept(checkpoints: int, last_number: int) -> str:
    """Return how many of all checkpoints that a session ever had are left."""
    return f"{checkpoints} of {last_number}"


def show_result(result: "CommandResult", output: Format) -> int:
    """Print the result of one command; exit code 1 where it was refused."""
    if output == "table":
        show_fields(_for_people(result), output)
    else:
        show_fields(for_programs(result.type, result.body), output)
    return FAILED if short(result.type) == "rejected" else DONE


def _for_people(result: "CommandResult") -> dict[str, Any]:
    body = dict(result.body)
    command = body.pop("command")
    checkpoint = body.pop("checkpoint", None)
    removed = body.pop("removed", None)
    fields = {"result": short(result.type), **body}
    if checkpoint is not None:
        del fields["session_id"]
        fields |= {"checkpoint": checkpoint["id"], **{k: v for k, v in checkpoint.items() if k != "id"}}
    if removed:
        fields["removed"] = ", ".join(removed)
    return {**fields, "command": f"{command['id']} at {command['partition']}/{command['offset']}"}
