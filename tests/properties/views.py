"""A product session and its decisions as plain values, to compare, print and copy."""

from dataclasses import asdict
from typing import Any

from waypost.model.decisions import (
    Cleared,
    Configured,
    Created,
    Decision,
    Deleted,
    Duplicate,
    Erased,
    Expired,
    Imported,
    Pinned,
    Rejected,
    RolledBack,
    SessionKept,
    Unpinned,
)
from waypost.model.index import Entry, Session
from waypost.model.retention import RetentionPolicy


def plain_policy(policy: RetentionPolicy) -> dict[str, Any]:
    return asdict(policy)


def plain_decision(decision: Decision) -> tuple[Any, ...]:
    """A decision as the naive model words it."""
    match decision:
        case Created(entry=entry):
            removed = list(decision.removed)
            return ("created", entry.number, entry.name, entry.taken_at, entry.recorded_at, removed)
        case Pinned():
            return ("pinned", decision.number, list(decision.removed))
        case Unpinned():
            return ("unpinned", decision.number, list(decision.removed))
        case Deleted():
            return ("deleted", decision.number, list(decision.removed))
        case Cleared():
            return ("cleared", list(decision.removed))
        case RolledBack():
            return ("rolled back", decision.number, list(decision.removed))
        case Imported():
            placed = [(placed.number, placed.outcome) for placed in decision.placed]
            return ("imported", placed, list(decision.removed))
        case Configured():
            policy = tuple(sorted(plain_policy(decision.policy).items()))
            return ("configured", policy, list(decision.removed))
        case Expired():
            return ("expired", decision.idle_since, decision.last_recorded_at, list(decision.removed))
        case Erased():
            return ("erased", decision.erased_at, list(decision.removed))
        case SessionKept():
            return ("kept", decision.idle_since, decision.last_recorded_at)
        case Rejected():
            return ("rejected", decision.code)
        case Duplicate():
            return ("duplicate", decision.number)
        case _:
            raise AssertionError(decision)


def plain_entries(session: Session) -> list[dict[str, Any]]:
    # Not asdict, which takes most of the time of a test that looks after every command.
    return [{name: getattr(entry, name) for name in Entry.__slots__} for entry in session.live()]


def plain_state(session: Session) -> dict[str, Any]:
    """All that a session is, by its public face; independent of the session."""
    return {
        "counter": session.counter,
        "policy": session.policy,
        "entries": plain_entries(session),
        "by_number": sorted(session.entries),
        "recent": list(session.recent),
        "last_recorded_at": session.last_recorded_at,
        "erased_at": session.erased_at,
        "length": len(session),
    }
