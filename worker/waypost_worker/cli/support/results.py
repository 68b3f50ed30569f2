"""How the result of a command is shown."""

from typing import TYPE_CHECKING, Any

from waypost_worker.cli.support.output import DONE, FAILED, Format, show_fields

if TYPE_CHECKING:
    from waypost.publisher.waiter import CommandResult


def short(kind: str) -> str:
    """The last part of a type: ``created`` for ``waypost.checkpoint.created``."""
    return kind.rpartition(".")[2]


def for_programs(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    """A result as JSON."""
    return {"result": short(kind), "type": kind, **body}


def about(kind: str, body: dict[str, Any]) -> str:
    """What there is to say of a result beside its type and subject, on one line."""
    match short(kind):
        case "rejected":
            return f"{body['code']}: {body['message']}"
        case "created" | "rolled_back":
            said = str(body["checkpoint"]["name"])
        case "cleared" | "expired":
            return f"{body['count']} dropped"
        case "kept":
            return f"not idle since {body['idle_since']}"
        case "imported":
            said = ", ".join(f"{body[key]} {key}" for key in ("imported", "replaced", "skipped"))
        case "duplicate":
            return "this command id was seen before"
        case _:
            said = ""
    removed = len(body.get("removed", ()))
    return f"{said} ({removed} dropped)".strip() if removed else said


def subject(kind: str, body: dict[str, Any]) -> str | None:
    """The checkpoint, or else the session, that a result is about."""
    checkpoint = body.get("checkpoint")
    found = checkpoint["id"] if checkpoint else body.get("checkpoint_id") or body.get("session_id")
    return None if found is None else str(found)


def removal_note(result: "CommandResult") -> str | None:
    """What to tell a person if retention removed checkpoints with this command."""
    session, removed = result.body.get("session_id"), len(result.body.get("removed", ()))
    if not removed or short(result.type) not in ("created", "imported"):
        return None
    return (
        f"retention removed {removed} checkpoint{'' if removed == 1 else 's'} of {session!r}: "
        f"see 'waypost session policy {session}'"
    )


def kept(checkpoints: int, last_number: int) -> str:
    """How many of all checkpoints that a session ever had are left."""
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
