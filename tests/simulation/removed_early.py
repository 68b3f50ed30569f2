"""The start of a log moves ahead of what is still needed, as when tiered storage deletes too early, and operators who
accept that once.

Commands that were not applied can't be got back: the partition is refused, in words that count them. So it is if one
was applied whose result was not emitted yet, for that is made from the command. Results that
nobody has compared with what was applied are refused as well, until workers are started with accept_trimmed_results.
"""

import asyncio
import re
from random import Random
from typing import TYPE_CHECKING, Final

from tests.simulation.broker import CommandPartition, StoredResult
from tests.simulation.database import Tables
from tests.simulation.loop import OUTSIDE
from tests.simulation.replies import answered_command, last_answered

from waypost_worker.partition import outbox

if TYPE_CHECKING:
    from tests.simulation.world import World

COMMANDS: Final = "commands_removed_early"
RESULTS: Final = "results_removed_early"
_ACCEPT: Final = "WAYPOST_ACCEPT_TRIMMED_RESULTS=true once"
_REFUSED_COMMANDS: Final = re.compile(
    r"the command topic starts at offset (\d+), but Postgres has applied only up to (-?\d+): retention removed (\d+) "
    r"offsets before they were applied\. Nothing was changed\. Restore a newer backup or snapshot of Postgres"
)
_REFUSED_ANSWER: Final = re.compile(
    r"results of committed commands are still to be emitted, and the command topic no longer holds the record at "
    r"offset (\d+) that they are made from: nothing was emitted or changed"
)
_REFUSED_RESULTS: Final = re.compile(
    r"retention removed results (\d+) to (\d+) before this worker could check "
)


def remove_commands(world: "World", partition: int, random: Random) -> None:
    """Publish a few commands, and remove some of them, or all, before anybody could read them."""
    log = world.commands[partition]
    for _ in range(random.randrange(1, 5)):
        world.traffic.publish(partition)
    log.end_transactions()
    log.trim(random.randint(min(log.end, _tables(world, partition).next_offset + 1), log.end))


def remove_results(world: "World", partition: int, random: Random) -> None:
    """Remove results above the stored position; in most worlds the owners die at that moment."""
    log = world.results[partition]
    before = log.start
    log.trim(random.randint(min(log.end, _tables(world, partition).results_offset + 1), log.end))
    world.removed_early[partition] = range(before, log.start)
    if random.random() < 0.8:
        for index, host in enumerate(world.fleet.hosts):
            if partition in host.owners:
                owned = list(host.owners)
                world.fleet.crash(host)
                world.loop.call_later(random.random(), _boot, world, index, owned, context=OUTSIDE)


def _boot(world: "World", index: int, owned: list[int]) -> None:
    if world.fleet.hosts[index].process.dead:
        host = world.fleet.boot(index)
        for partition in owned:
            world.fleet.own(host, partition)


async def operator(world: "World") -> None:
    """Start the workers with accept_trimmed_results once they ask for it, and without it once they have caught up."""
    random = Random(f"operator who accepts, of {world.plan.seed}")
    fleet = world.fleet
    while True:
        await asyncio.sleep(random.uniform(0.5, 4))
        if world.stopping:
            return
        asking = _asking(world)
        if asking != fleet.accepting and (asking or not world.behind()):
            world.say(
                f"operators {'accept' if asking else 'no longer accept'} results that were removed early"
            )
            fleet.accepting = asking
        for index, host in enumerate(list(fleet.hosts)):
            owned = list(host.owners)
            if owned and host.accepting != fleet.accepting and not host.process.paused:
                fleet.crash(host)
                # With what an owner that was crashed was about to own again.
                left = [
                    one
                    for one in range(world.plan.partitions)
                    if not any(one in each.owners for each in fleet.hosts)
                ]
                _boot(world, index, sorted({*owned, *left}))


def _asking(world: "World") -> bool:
    """Whether an owner asks for the operators' word."""
    found = False
    for partition, results in enumerate(world.results):
        said = world.fleet.refused(partition)
        if said is None or _ACCEPT not in said:
            continue
        found = True
        removed = _REFUSED_RESULTS.search(said)
        if removed is None or int(removed[2]) != results.start - 1 or int(removed[1]) >= results.start:
            world.problems.append(f"refused in other words: p{partition}: {said}"[:300])
    return found


def is_any_lost(world: "World", partition: int) -> bool:
    """Whether retention removed offsets of a partition that Postgres has not applied, or whose results are owed."""
    applied = _tables(world, partition).next_offset
    return applied < world.commands[partition].start or _unanswerable(world, partition) is not None


def _unanswerable(world: "World", partition: int) -> int | None:
    """The first removed command from which a result is still to be made; None if there is none."""
    answered, start = last_answered(world.results[partition]), world.commands[partition].start
    entries = _tables(world, partition).outbox.values()
    needed = [offset for entry in entries for offset in outbox.needs_log(outbox.unpack(entry.payload))]
    return min((offset for offset in needed if answered < offset < start), default=None)


def judge_refusal(world: "World", partition: int) -> list[str]:
    """What is wrong with how a partition of which commands were removed early ended."""
    if not is_any_lost(world, partition):
        return []
    log, said = world.commands[partition], world.refusals.get(partition)
    position = _tables(world, partition).next_offset
    if said is None:
        return [f"not refused: p{partition}: applied up to {position}, and the log begins at {log.start}"]
    if position >= log.start:
        found = _REFUSED_ANSWER.match(said)
        offset = _unanswerable(world, partition)
        if found is None or int(found[1]) != offset:
            return [f"refused in other words: p{partition}: {offset}: {said}"[:300]]
        return []
    found = _REFUSED_COMMANDS.match(said)
    numbers = (log.start, position - 1, log.start - position)
    if found is None or tuple(map(int, found.groups())) != numbers:
        return [f"refused in other words: p{partition}: {numbers}: {said}"[:300]]
    return []


def seen_once(found: list[StoredResult], removed: range) -> tuple[list[StoredResult], list[str]]:
    """The results without those that were ``removed`` early and then emitted once more; and what is wrong with the
    latter, which must say the same.
    """
    again: dict[int, StoredResult] = {}
    kept, problems = [], []
    for record in reversed(found):
        later = again.setdefault(answered_command(record), record)
        if later is record or record.offset not in removed:
            kept.append(record)
        elif later[1:4] != record[1:4]:
            problems.append(f"said otherwise when it came again: {record.offset} and {later.offset}")
    return kept[::-1], problems


def _tables(world: "World", partition: int) -> Tables:
    return world.database_of(partition).tables.get(partition) or Tables(0)


def compact(log: CommandPartition, random: Random) -> None:
    """The log cleaner removes some of the commands that are followed by another one of the same key."""
    last = {record.key: record.offset for record in log.records}
    log.compact([one.offset for one in log.records if last[one.key] > one.offset and random.random() < 0.7])
