"""Copies of a partition's rows at earlier moments, as snapshots keep them, and logs that reach back no further.

Every transaction that ever was leaves one, also those that Postgres lost later: a snapshot may have been taken then.
"""

from random import Random
from typing import TYPE_CHECKING

from tests.simulation.broker import CommandPartition, ResultsPartition
from tests.simulation.database import Tables
from tests.simulation.replies import answered_command, last_answered

from waypost_worker.partition import outbox

if TYPE_CHECKING:
    from tests.simulation.world import World

_SHARE = 0.4  # of what could begin with nothing
_LACKED = 8  # the most records that a results topic lacks at its end


def copy_to_begin_with(world: "World", partition: int, random: Random) -> Tables | None:
    """One that the logs still reach back to; None, at random, where they are whole. ValueError if there is none."""
    commands, results = world.commands[partition], world.results[partition]
    fitting = [
        copy
        for copy in world.database_of(partition).copies.get(partition, ())
        if copy.next_offset >= commands.start and copy.results_offset >= results.start
    ]
    whole = commands.start == 0 and results.start == 0
    if whole and (not fitting or random.random() >= _SHARE):
        return None
    if not fitting:
        raise ValueError(f"the logs of p{partition} begin after everything that Postgres ever held")
    return random.choice(fitting)


def shortened(world: "World", partition: int, copy: Tables | None, random: Random) -> ResultsPartition:
    """A copy of the results topic as it is, or as it was a few records ago.

    What it lacks can be made again from the command log as it is, or is owed by ``copy``. Else a worker refuses the
    partition: answers that were found in the topic when Postgres had lost them are kept nowhere else.
    """
    original = world.results[partition]
    topic = ResultsPartition(float("inf"), world.loop.time)
    topic.start, topic.end = original.start, original.end
    topic.records, topic.trimmed = list(original.records), list(original.trimmed)
    start, least = world.commands[partition].start, max(topic.start, topic.end - _LACKED)
    begin, owed = start, set()
    if copy is not None:
        begin, least = copy.next_offset, max(least, copy.results_offset)
        owed = {item[0] for entry in copy.outbox.values() for item in outbox.unpack(entry.payload)}
    for record in topic.records:
        command = answered_command(record)
        if 0 <= command < begin and (command < start or command not in owed):
            least = max(least, record.offset + 1)
    if random.random() < 0.5:
        topic.cut(random.randint(least, topic.end))
    return topic


def retain(log: CommandPartition, topic: ResultsPartition, copy: Tables, random: Random) -> None:
    """Retention removes what nobody needs who has the copy: commands before its position that are answered, results
    before its results position; or more of the results, as long as later ones tell which commands were answered.
    """
    unneeded = min(copy.next_offset, last_answered(topic) + 1)
    log.trim(random.randint(log.start, max(log.start, unneeded)))
    below = copy.results_offset
    answers = [record.offset for record in topic.records if answered_command(record) >= 0]
    replayed = bool(log.records) and log.records[-1].offset >= copy.next_offset
    if answers and replayed and random.random() < 0.5:
        below = max(below, answers[-1])
    topic.trim(random.randint(topic.start, max(topic.start, below)))
