"""What must hold once a world has come to rest, worked out from the command log without any of the owner's code.

The fold is tests/oracle/fold.py over the naive session of tests/properties/naive.py.
"""

import uuid
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import orjson
from tests.oracle import fold as folding
from tests.simulation import removed_early
from tests.simulation.accepted import judge_lives
from tests.simulation.broker import CommandRecord, StoredResult
from tests.simulation.database import Tables
from tests.simulation.fleet import RESULTS_TOPIC
from tests.simulation.world import World

from waypost.wire.event_types import EventType
from waypost_worker.partition import outbox
from waypost_worker.partition.anchor import anchor_of
from waypost_worker.partition.ports import FetchedResult

_COMMANDS_DISASTERS = ("cut_commands", "recreate_commands", "recreate_commands_and_restore")
_REBUILT = (
    "next_offset",
    "anchor",
    "checkpoints",
    "sessions",
    "rejected",
    "default_policy",
    "default_commands",
    "authority",
    "rejected_window",
)
_RESULTS_DISASTERS = (
    removed_early.RESULTS,
    "cut_results",
    "recreate_results",
    "trim_results",
    "foreign_writer",
    "lose_a_result_and_restore",
)


@dataclass
class SimulationReport:
    """``problems`` is empty where all is well; each begins with the check that found it."""

    commands: int = 0
    lost: int = 0
    doubled: int = 0
    out_of_order: int = 0
    stuck: int = 0
    replayed: int = 0  # commands that replay applied once more, to an equal database
    restored: int = 0  # of those, how many behind a copy that was restored
    accepted: int = 0  # commands that publishers accepted
    accepted_again: int = 0  # of those, how many are in the log more than once
    problems: list[str] = field(default_factory=list)


def judge(world: World) -> SimulationReport:
    """Compare everything with everything."""
    verdict = SimulationReport()
    verdict.problems += world.problems
    verdict.problems += [f"owner died: {text}" for text in world.fleet.deaths]
    for database in world.databases:
        verdict.problems += [f"schema violated: {text}" for text in database.violations]
    verdict.stuck = sum(problem.startswith("stuck") for problem in world.problems)
    for partition, log in enumerate(world.commands):
        judged = _Partition(world, partition, log.everything())
        if world.may_be_refused(partition) and partition in world.refusals:
            _judge_refused(world, judged, verdict)
        else:
            judged.results(verdict)
            judged.store(verdict)
            judged.subscriber(verdict)
            judged.rebuilt(verdict)
        if world.plan.disaster == removed_early.COMMANDS and partition in world.refusable:
            verdict.problems += removed_early.judge_refusal(world, partition)
    if world.plan.disaster not in _COMMANDS_DISASTERS:
        accepted = judge_lives(world.publishing.lives, [log.everything() for log in world.commands])
        verdict.accepted, verdict.accepted_again = accepted.commands, accepted.again
        verdict.lost += accepted.lost
        verdict.out_of_order += accepted.out_of_order
        verdict.problems += accepted.problems
    return verdict


def _judge_refused(world: World, judged: "_Partition", verdict: SimulationReport) -> None:
    """A refused partition may be incomplete, but what was done is right for one of the logs there were."""
    judged.order(verdict)
    partition = judged.partition
    candidates = [judged]
    if partition in world.originals:
        candidates.append(_Partition(world, partition, world.originals[partition]))
    outcomes = []
    for candidate in candidates:
        outcome = SimulationReport()
        applied = [record for record in candidate.records if record.offset < judged.tables.next_offset]
        done = _Partition(world, partition, applied, list(candidate.records))
        done.answers(outcome)
        done.store(outcome)
        outcomes.append(outcome.problems)
    if all(outcomes):
        verdict.problems += [f"refused, and {text}" for text in outcomes[0]]


class _Partition:
    def __init__(
        self,
        world: World,
        partition: int,
        records: list[CommandRecord],
        ahead: list[CommandRecord] | None = None,
    ) -> None:
        self.world = world
        self.partition = partition
        self.records = records
        self.fold = folding._Fold(partition, world.plan.partitions)
        self.expected = self.fold.run(list(records), None if ahead is None else list(ahead))
        self.tables = world.database_of(partition).tables.get(partition) or Tables(0)
        self.seen = world.traffic.seen[partition]
        log = world.results[partition]
        self.found = [record for record in log.trimmed + log.records if _is_result(record)]
        if (removed := world.removed_early.get(partition)) is not None:
            self.found, wrong = removed_early.seen_once(self.found, removed)
            world.problems += wrong

    def results(self, verdict: SimulationReport) -> None:
        """One result per command, in command order, and each is what the fold gives."""
        offsets = self.order(verdict)
        counted = Counter(offsets)
        lost = [record.offset for record in self.records if record.offset not in counted]
        verdict.commands += len(self.records)
        verdict.lost += len(lost)
        if lost:
            self.problem(verdict, "result lost", lost)
        known = {record.offset for record in self.records}
        if unknown := [offset for offset in counted if offset not in known]:
            self.problem(verdict, "result of no command", unknown)
        self.answers(verdict)

    def order(self, verdict: SimulationReport) -> list[int]:
        """No command is answered twice, none before an earlier one; the command offsets of the results."""
        offsets = [_command_offset(record) for record in self.found]
        doubled = [offset for offset, count in Counter(offsets).items() if count > 1]
        disorder = sum(later < earlier for earlier, later in pairwise(offsets))
        verdict.doubled += len(doubled)
        verdict.out_of_order += disorder
        if doubled:
            self.problem(verdict, "result doubled", doubled)
        if disorder:
            self.problem(verdict, "results out of order", offsets)
        return offsets

    def answers(self, verdict: SimulationReport) -> None:
        """Each result that is there says what the fold gives for its command."""
        found = {_command_offset(record): record for record in self.found}
        answered = [
            (record, expected, found[record.offset])
            for record, expected in zip(self.records, self.expected.results, strict=True)
            if record.offset in found
        ]
        differences = folding.differences(
            folding.Expected(results=[expected for _, expected, _ in answered]),
            [
                (dict(result.headers)["ce_type"].decode(), orjson.loads(result.value))
                for _, _, result in answered
            ],
        )
        if differences:
            self.problem(verdict, "result differs from the fold", differences)
        for record, _, result in answered:
            self.envelope(verdict, record, result)

    def rebuilt(self, verdict: SimulationReport) -> None:
        """What replay made of the same log equals what the workers made; it owes what its results topic lacked, and
        with that, once an owner has emitted it, the topic is what it was.
        """
        if self.partition not in self.world.rebuilt:
            return
        rebuilt = self.world.rebuilt[self.partition]
        tables, last = rebuilt.tables, rebuilt.answered
        begun = 0 if rebuilt.copy is None else rebuilt.copy.next_offset
        applied = sum(record.offset >= begun for record in self.records)
        verdict.replayed += applied
        if rebuilt.copy is not None:
            verdict.restored += applied
        lacked = [record.offset for record in self.records if record.offset > last]
        items = [
            item for first in sorted(tables.outbox) for item in outbox.unpack(tables.outbox[first].payload)
        ]
        owed = [item[0] for item in items if item[0] > tables.emitted]
        if rebuilt.copy is not None:
            # It may have owed what was emitted since, which its heir finds in the topic.
            owed = [offset for offset in owed if offset > last]
        if owed != lacked:
            self.problem(verdict, "replay: what is owed differs", [owed, lacked])
        topic = rebuilt.results
        again = [record[1:4] for record in topic.trimmed + topic.records if _is_result(record)]
        if again != (was := [record[1:4] for record in self.found]):
            self.problem(verdict, "replay: results differ once an owner went on", [again, was])
        for name in _REBUILT:
            live, replayed = getattr(self.tables, name), getattr(tables, name)
            if live != replayed:
                self.problem(verdict, f"replay: {name} differ", [live, replayed])

    def envelope(self, verdict: SimulationReport, record: CommandRecord, result: FetchedResult) -> None:
        """What the contract says of every result's headers and key."""
        headers = dict(result.headers)
        name = f"{RESULTS_TOPIC}:{self.partition}:{record.offset}"
        if headers["ce_id"].decode() != str(uuid.uuid5(uuid.NAMESPACE_URL, name)):
            self.problem(verdict, "event id differs", [record.offset, headers["ce_id"]])
        body = orjson.loads(result.value)
        session_id = body.get("session_id")
        if headers.get("ce_sessionid") != (None if session_id is None else session_id.encode()):
            self.problem(verdict, "session header differs", [record.offset, headers])
        rejected = headers["ce_type"] == EventType.REJECTED.wire
        if result.key != (record.key if rejected or session_id is None else session_id.encode()):
            self.problem(verdict, "key differs", [record.offset, result.key])
        traceparent = dict(record.headers).get("traceparent")
        if not rejected and headers.get("traceparent") != traceparent:
            self.problem(verdict, "traceparent differs", [record.offset, headers])

    def store(self, verdict: SimulationReport) -> None:
        """Postgres equals the fold, to the byte of data."""
        tables, expected = self.tables, self.expected
        rows = {}
        for key, (entry, data, metadata) in tables.checkpoints.items():
            rows[key] = {
                "number": entry.number,
                "name": entry.name,
                "taken_at": entry.taken_at,
                "recorded_at": entry.recorded_at,
                "position": entry.position,
                "command_id": entry.command_id,
                "imported_id": entry.imported_id,
                "pinned": entry.pinned,
                "data": data,
                "metadata": orjson.loads(metadata),
            }
        self.same(verdict, "checkpoints", rows, expected.rows)
        touched = {
            session_id: session
            for session_id, session in self.fold.sessions.items()
            if session.counter or session.policy or session.others
        }
        self.same(
            verdict,
            "sessions",
            {
                session_id: (row.counter, _policy(row.policy), row.checkpoints, row.erased_at)
                for session_id, row in tables.sessions.items()
            },
            {
                session_id: (session.counter, session.policy, len(session.checkpoints), session.erased)
                for session_id, session in touched.items()
            },
        )
        self.same(
            verdict,
            "remembered commands",
            {name: sorted(list(one) for one in row.recent.values()) for name, row in tables.sessions.items()},
            {session_id: sorted(session.others) for session_id, session in touched.items()},
        )
        self.same(verdict, "default policy", _policy(tables.default_policy), self.fold.default)
        self.same(verdict, "default commands", tables.default_commands, self.fold.default_ids)
        stored = (tables.authority.key, tables.authority.signed_at, list(tables.authority.skipped))
        self.same(verdict, "authority", stored, (self.fold.key, self.fold.signed_at, self.fold.skipped))
        self.same(
            verdict,
            "rejected commands",
            [(offset, row.code) for offset, row in sorted(tables.rejected.items())],
            self.kept_rejections(),
        )
        by_offset = {record.offset: record for record in self.records}
        for offset, row in tables.rejected.items():
            record = by_offset.get(offset)
            content = None if record is None else (record.value, list(record.headers))
            if record is not None and offset in expected.bare:
                content = (None if record.value is None else b"", [])
            if record is not None and (row.key, (row.value, list(row.headers))) != (record.key, content):
                self.problem(verdict, "rejected command not kept as it came", [offset, row])
        self.position(verdict)

    def kept_rejections(self) -> list[tuple[int, str]]:
        """The newest rejected commands: the oldest go a part at a time, once there are more parts than are kept."""
        parts, rows = self.world.plan.rejected_parts
        rejected = self.expected.rejected
        too_many = max(0, -(-len(rejected) // rows) - parts)
        return [one for one in rejected[too_many * rows :] if one[0] not in self.expected.erased]

    def position(self, verdict: SimulationReport) -> None:
        """The row of ``partitions`` and the outbox tell the truth about the logs."""
        tables = self.tables
        if not self.records:
            return
        last = self.records[-1]
        self.same(verdict, "next offset", tables.next_offset, last.offset + 1)
        self.same(verdict, "anchor", tables.anchor, anchor_of(last))
        if self.world.plan.disaster not in _RESULTS_DISASTERS:
            below = [record for record in self.found if record.offset < tables.results_offset]
            highest = max((_command_offset(record) for record in below), default=-1)
            self.same(verdict, "results position", tables.emitted, highest)
        waiting = [
            entry
            for entry in tables.outbox.values()
            if entry.last_offset <= tables.emitted and entry.payload != b"[]"
        ]
        self.same(verdict, "confirmed outbox entries left", waiting, [])

    def subscriber(self, verdict: SimulationReport) -> None:
        """Who read the results as they came saw each once, and what is in the topic now."""
        counted = Counter(event_id for _, event_id in self.seen)
        repeated = [event_id for event_id, count in counted.items() if count > 1]
        if repeated and self.world.plan.disaster not in _RESULTS_DISASTERS:
            self.problem(verdict, "subscriber saw a result twice", repeated)
        if self.world.plan.disaster in _RESULTS_DISASTERS:
            return
        there = {dict(record.headers)["ce_id"].decode() for record in self.found}
        if phantoms := [event_id for event_id in counted if event_id not in there]:
            self.problem(verdict, "subscriber saw what is not in the topic", phantoms)
        if missed := [event_id for event_id in sorted(there) if event_id not in counted]:
            self.problem(verdict, "subscriber missed", missed)

    def same(self, verdict: SimulationReport, what: str, found: Any, expected: Any) -> None:
        if found != expected:
            shown: Any = [found, expected]
            if isinstance(found, dict) and isinstance(expected, dict):
                keys = [key for key in {**found, **expected} if found.get(key) != expected.get(key)]
                shown = [(key, found.get(key), expected.get(key)) for key in keys]
            self.problem(verdict, f"store: {what} differ", shown)

    def problem(self, verdict: SimulationReport, check: str, details: Any) -> None:
        verdict.problems.append(f"{check}: p{self.partition}: {details}"[:500])


def _is_result(record: StoredResult) -> bool:
    return record.producer_id >= 0 and dict(record.headers).get("ce_type") != EventType.ACQUIRED.wire


def _command_offset(record: FetchedResult) -> int:
    return int(orjson.loads(record.value)["command"]["offset"])


def _policy(policy: Any) -> dict[str, Any] | None:
    if policy is None:
        return None
    return {
        "max_checkpoints": policy.max_checkpoints,
        "compress_after": policy.compress_after,
        "keep_recent": policy.keep_recent,
        "max_age": policy.max_age,
        "encrypted": policy.encrypted,
    }
