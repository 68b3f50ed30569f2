"""Results in words. Pure."""

from typing import Any


def short(kind: str) -> str:
    """The last part of a type: ``created`` for ``waypost.checkpoint.created``."""
    return kind.rpartition(".")[2]


def for_programs(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    """A result as JSON."""
    return {"result": short(kind), "type": kind, **body}


def about(kind: str, body: dict[str, Any]) -> str:
    """Describe a result on one line, apart from its type and subject."""
    match short(kind):
        case "rejected":
            return f"{body['code']}: {body['message']}"
        case "created" | "rolled_back":
            said = str(body["checkpoint"]["name"])
        case "cleared" | "expired" | "erased":
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
