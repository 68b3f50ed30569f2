"""What must hold of the commands that publishers accepted, worked out from the command log.

A publisher's commands are in each partition in the order of acceptance, and as far as Kafka has them, without gaps:
the last ones may be missing where its process died. One may come again, after its first time. What the publisher
reported as delivered is there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.simulation.broker import CommandRecord
from tests.simulation.publishing import Life


@dataclass
class Accepted:
    """``again`` counts commands that Kafka has more than once although they were accepted once."""

    commands: int = 0
    again: int = 0
    lost: int = 0
    out_of_order: int = 0
    problems: list[str] = field(default_factory=list)


def judge_lives(lives: Sequence[Life], logs: Sequence[Sequence[CommandRecord]]) -> Accepted:
    """Compare what was accepted with the partitions' records, trimmed ones included."""
    verdict = Accepted()
    found: dict[tuple[str, int], list[str]] = {}
    for partition, records in enumerate(logs):
        for record in records:
            headers = dict(record.headers)
            source = headers.get("ce_source", b"").decode(errors="replace")
            found.setdefault((source, partition), []).append(
                headers.get("ce_id", b"").decode(errors="replace")
            )
    for life in lives:
        for partition in range(len(logs)):
            accepted = [one for one, where in life.accepted if where == partition]
            _judge(life, partition, accepted, found.get((life.source, partition), []), verdict)
    return verdict


def _judge(life: Life, partition: int, accepted: list[str], found: list[str], verdict: Accepted) -> None:
    where = f"{life.source} p{partition}"
    verdict.commands += len(accepted)
    verdict.again += max(0, len(found) - len(accepted))
    there = list(dict.fromkeys(found))
    refused = {one for one, why in life.failed.items() if "refused it for good" in why}
    expected = [one for one in dict.fromkeys(accepted) if one not in refused]
    if there != expected[: len(there)]:
        verdict.out_of_order += 1
        verdict.problems.append(f"accepted out of order: {where}: {there} of {expected}"[:500])
    if lost := [one for one in expected if one in life.delivered and one not in found]:
        verdict.lost += len(lost)
        verdict.problems.append(f"accepted and delivered, but lost: {where}: {lost}"[:500])
    if found_refused := refused.intersection(found):
        verdict.problems.append(f"accepted, refused and there: {where}: {sorted(found_refused)}"[:500])
    if life.killed:
        return
    if untold := [one for one in expected if one not in life.delivered and one not in life.failed]:
        verdict.problems.append(f"accepted and never told of: {where}: {untold}"[:500])
