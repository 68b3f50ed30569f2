"""One session, written a second time from the semantics alone: plain lists and dicts, slow and obvious.

It shares nothing with the product but the command values. Checkpoints are dicts in a list that is sorted when
order matters; a decision is a tuple of plain values, so that any difference prints itself.
"""

import base64
import json
import string
import unicodedata
from typing import Any

from waypost.model.commands import (
    Clear,
    Command,
    Configure,
    ConfigureDefaults,
    Create,
    Delete,
    Erase,
    Expire,
    Import,
    Pin,
    Rollback,
    Unpin,
)

DEDUP_WINDOW = 256  # other commands, at least
FORGET_ABOVE = 320
DEFAULT_POLICY = {
    "max_checkpoints": 100,
    "compress_after": 50,
    "keep_recent": 20,
    "max_age": None,
    "encrypted": False,
}


class Refused(Exception):
    """The command breaks a rule; the only argument is the rejection code."""


def looks_encrypted(data: bytes) -> bool:
    """As docs/encryption.md describes encrypted data."""
    if b"\\" in data.partition(b":")[0]:
        return False  # the name is written as it is
    outer = json.loads(data)
    if list(outer) != ["waypost.encrypted"] or not isinstance(outer["waypost.encrypted"], dict):
        return False
    inner = dict(outer["waypost.encrypted"])
    origin = inner.pop("origin", inner.get("session"))
    if sorted(inner) != ["alg", "by", "ciphertext", "command", "key", "nonce", "session", "v"]:
        return False
    if type(inner.pop("v")) is not int or outer["waypost.encrypted"]["v"] != 1:
        return False
    if not all(isinstance(text, str) for text in (*inner.values(), origin)):
        return False
    for text, longest in ((inner["session"], 200), (origin, 200), (inner["command"], 64)):
        if not 1 <= len(text) <= longest or any(
            unicodedata.category(letter) in ("Cc", "Cs") for letter in text
        ):
            return False
    letters = set(string.ascii_letters + string.digits)
    if not 1 <= len(inner["key"]) <= 64 or not set(inner["key"]) <= letters | {"-", "_"}:
        return False
    try:
        nonce = base64.b64decode(inner["nonce"], validate=True)
        ciphertext = base64.b64decode(inner["ciphertext"], validate=True)
    except ValueError:
        return False
    # Two bytes of JSON at least, and a tag of 16.
    return (
        inner["alg"] == "A256GCM"
        and inner["by"] in ("create", "import")
        and len(nonce) == 12
        and len(ciphertext) >= 18
    )


class NaiveSession:
    """Call :meth:`handle` with each command; every attribute is plain data."""

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.counter = 0
        self.policy: dict[str, Any] | None = None
        self.checkpoints: list[dict[str, Any]] = []
        # Accepted commands that no live checkpoint carries: [position, command id, number or None].
        self.others: list[list[Any]] = []
        self.last: int | None = None  # when the last accepted command was recorded
        self.erased: int | None = None  # when the first erase command was recorded

    def handle(self, command: Command, default: dict[str, Any]) -> tuple[Any, ...]:
        """The decision; the session changes only if the command is accepted."""
        if self.erased is not None and not isinstance(command.action, Erase):
            return ("rejected", "erased")
        if command.id is not None:
            for checkpoint in self.checkpoints:
                if checkpoint["command_id"] == command.id:
                    return ("duplicate", checkpoint["number"])
            for _, command_id, number in self.others:
                if command_id == command.id:
                    return ("duplicate", number)
        # Rows are flat, and the policy is replaced as a whole.
        before = (self.counter, self.policy, [dict(row) for row in self.checkpoints], list(self.others))
        try:
            decision, about = self._accept(command, default)
        except Refused as refusal:
            self.counter, self.policy, self.checkpoints, self.others = before
            return ("rejected", refusal.args[0])
        if decision[0] == "kept":
            return decision
        self.last = command.recorded_at
        if decision[0] == "expired" and not decision[3]:
            self.others = []
        if decision[0] == "erased":
            self.others, dropped = [], []  # not even the ids of what was dropped
        else:
            dropped = before[2]
        self._remember(command, about, dropped, decision[0] == "created")
        return decision

    def numbers(self) -> list[int]:
        return [checkpoint["number"] for checkpoint in self.checkpoints]

    # What the commands do.

    def _accept(self, command: Command, default: dict[str, Any]) -> tuple[tuple[Any, ...], int | None]:
        action = command.action
        policy = dict(self.policy or default)
        now = command.recorded_at
        before = self.numbers()
        if policy["encrypted"] or default["encrypted"]:
            contents = [action.data] if isinstance(action, Create) else []
            if isinstance(action, Import):
                contents = [item.data for item in action.checkpoints]
            if not all(looks_encrypted(data) for data in contents):
                raise Refused("encryption-required")
            if isinstance(action, Configure) and dict(action.changes).get("encrypted") is False:
                raise Refused("encryption-required")
        if isinstance(action, Create):
            self.counter = self.counter + 1
            self._insert(self.counter, action.name, command.taken_at, command, command_id=command.id)
            self._age(policy, now)
            self._compress(policy)
            self._cap(policy)
            return (
                "created",
                self.counter,
                action.name,
                command.taken_at,
                now,
                self._gone(before),
            ), self.counter
        if isinstance(action, Pin):
            target = self._find(action.checkpoint_id)
            pins = len([c for c in self.checkpoints if c["pinned"]])
            if not target["pinned"] and pins + 1 > policy["max_checkpoints"] - 2:
                raise Refused("pin-limit")
            target["pinned"] = True
            self._age(policy, now)
            return ("pinned", target["number"], self._gone(before)), target["number"]
        if isinstance(action, Unpin):
            target = self._find(action.checkpoint_id)
            target["pinned"] = False
            self._age(policy, now)
            return ("unpinned", target["number"], self._gone(before)), target["number"]
        if isinstance(action, Delete):
            target = self._find(action.checkpoint_id)
            self._drop(target["number"])
            self._age(policy, now)
            gone = [number for number in self._gone(before) if number != target["number"]]
            return ("deleted", target["number"], gone), target["number"]
        if isinstance(action, Clear):
            self.checkpoints = []
            return ("cleared", before), None
        if isinstance(action, Rollback):
            target = self._find(action.checkpoint_id)
            if action.discard_later:
                for number in before:
                    if number > target["number"]:
                        self._drop(number)
            self._age(policy, now)
            return ("rolled back", target["number"], self._gone(before)), target["number"]
        if isinstance(action, Import):
            return self._import(command, action, policy), None
        if isinstance(action, Configure):
            for field, value in action.changes:
                policy[field] = value
            if len([c for c in self.checkpoints if c["pinned"]]) > policy["max_checkpoints"] - 2:
                raise Refused("pin-limit")
            self.policy = policy
            self._age(policy, now)
            self._compress(policy)
            self._cap(policy)
            return ("configured", tuple(sorted(policy.items())), self._gone(before)), None
        if isinstance(action, Expire):
            if action.idle_since > now:
                raise Refused("invalid-body")
            if self.last is None or not self.last < action.idle_since:
                return ("kept", action.idle_since, self.last), None
            for checkpoint in list(self.checkpoints):
                if action.pinned or not checkpoint["pinned"]:
                    self._drop(checkpoint["number"])
            return ("expired", action.idle_since, self.last, self._gone(before)), None
        if isinstance(action, Erase):
            self.erased = now if self.erased is None else self.erased
            self.policy, self.checkpoints = None, []
            return ("erased", self.erased, before), None
        assert not isinstance(action, ConfigureDefaults), "not a session's command"
        raise AssertionError(action)

    def _import(self, command: Command, action: Import, policy: dict[str, Any]) -> tuple[Any, ...]:
        placed = []
        present = self.numbers()
        for item in action.checkpoints:
            own = self._own_number(item.id)
            if own is None:
                self.counter = self.counter + 1
                self._insert(self.counter, item.name, item.timestamp, command, imported_id=item.id)
                placed.append((self.counter, "imported"))
            elif own not in self.numbers():
                self._insert(own, item.name, item.timestamp, command)
                self.counter = max(self.counter, own)
                placed.append((own, "imported"))
            elif action.on_conflict == "reject":
                raise Refused("conflict")
            elif action.on_conflict == "skip":
                placed.append((own, "skipped"))
            else:
                there = self._at(own)
                there["name"] = item.name
                there["taken_at"] = item.timestamp
                there["recorded_at"] = command.recorded_at
                placed.append((own, "replaced"))
            if placed[-1][0] not in present:
                present.append(placed[-1][0])
        self._age(policy, command.recorded_at)
        self._cap(policy)
        return ("imported", placed, self._gone(present))

    # Retention, rule by rule.

    def _age(self, policy: dict[str, Any], now: int) -> None:
        if policy["max_age"] is None:
            return
        for row in list(self.checkpoints):
            too_old = row["recorded_at"] < now - policy["max_age"]
            if too_old and not row["pinned"] and row["number"] != max(self.numbers()):
                self._drop(row["number"])

    def _compress(self, policy: dict[str, Any]) -> None:
        if len(self.checkpoints) <= policy["compress_after"]:
            return
        recent = max(policy["keep_recent"], 1)  # the newest always stays
        numbers = self.numbers()
        between = numbers[1:-recent]
        keep = {numbers[0], *numbers[-recent:]}
        keep |= {c["number"] for c in self.checkpoints if c["pinned"]}
        names = {c["number"]: c["name"] for c in self.checkpoints}
        for name in {names[number] for number in between}:
            keep.add(max(number for number in between if names[number] == name))
        for number in numbers:
            if number not in keep:
                self._drop(number)

    def _cap(self, policy: dict[str, Any]) -> None:
        while len(self.checkpoints) > policy["max_checkpoints"]:
            first, newest = min(self.numbers()), max(self.numbers())
            loose = [c["number"] for c in self.checkpoints if not c["pinned"]]
            droppable = [number for number in loose if number not in (first, newest)]
            if droppable:
                self._drop(min(droppable))
            elif first in loose and first != newest:
                self._drop(first)
            else:
                return  # only pins and the newest are left

    # Small things.

    def _insert(
        self,
        number: int,
        name: str,
        taken_at: int,
        command: Command,
        command_id: str | None = None,
        imported_id: str | None = None,
    ) -> None:
        self.checkpoints.append(
            {
                "number": number,
                "name": name,
                "taken_at": taken_at,
                "recorded_at": command.recorded_at,
                "position": command.position,
                "command_id": command_id,
                "imported_id": imported_id,
                "pinned": False,
            }
        )
        self.checkpoints.sort(key=lambda checkpoint: checkpoint["number"])

    def _at(self, number: int) -> dict[str, Any]:
        for checkpoint in self.checkpoints:
            if checkpoint["number"] == number:
                return checkpoint
        raise AssertionError(number)

    def _drop(self, number: int) -> None:
        self.checkpoints = [c for c in self.checkpoints if c["number"] != number]

    def _gone(self, before: list[int]) -> list[int]:
        return sorted(set(before) - set(self.numbers()))

    def _own_number(self, identifier: str) -> int | None:
        if not identifier.startswith(self.session_id + ":"):
            return None
        rest = identifier[len(self.session_id) + 1 :]
        if rest == "" or any(character not in "0123456789" for character in rest):
            return None
        # Far above what was ever given is not a number to take over.
        if rest != str(int(rest)) or int(rest) == 0 or int(rest) > max(10**15, self.counter):
            return None
        return int(rest)

    def _find(self, identifier: str) -> dict[str, Any]:
        for checkpoint in self.checkpoints:
            if f"{self.session_id}:{checkpoint['number']}" == identifier:
                return checkpoint
        for checkpoint in self.checkpoints[::-1]:
            if checkpoint["imported_id"] == identifier:
                return checkpoint
        raise Refused("unknown-checkpoint")

    def _remember(
        self, command: Command, about: int | None, before: list[dict[str, Any]], created: bool
    ) -> None:
        known_before = len(self.others)
        present = set(self.numbers())
        for checkpoint in before:
            if checkpoint["number"] not in present and checkpoint["command_id"] is not None:
                self.others.append([checkpoint["position"], checkpoint["command_id"], checkpoint["number"]])
        if command.id is not None and not created:
            self.others.append([command.position, command.id, about])
        self.others.sort(key=lambda other: other[0])
        if len(self.others) > known_before and len(self.others) > FORGET_ABOVE:
            self.others = self.others[-DEDUP_WINDOW:]
