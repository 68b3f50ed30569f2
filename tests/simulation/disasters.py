"""What changes a log underneath its owner. It must end in a refusal, or be without consequence: never in a
command that is silently skipped or a result that is silently missing.
"""

from random import Random

from tests.simulation.removed_early import COMMANDS, RESULTS, compact, remove_commands, remove_results
from tests.simulation.world import World

from waypost.wire.event_types import EventType
from waypost_worker.partition.ports import ResultRecord

# Without topic ids, a log that is replaced and filled beyond the owner's position within one fetch is not told from the
# former one. There it takes longer, as it does if people recreate topics.
_AWAY_SECONDS = 3.0
_ALL = 1_000_000  # transactions: the partition's database is an empty one


def strike(world: World, disaster: str, random: Random) -> None:
    """Let one disaster happen to one partition."""
    partition = random.randrange(world.plan.partitions)
    log, results = world.commands[partition], world.results[partition]
    world.refusable = {partition}
    world.originals[partition] = log.everything()
    match disaster:
        case "trim_commands":
            log.trim(random.randint(log.start, log.end))
        case "cut_commands":
            world.traffic.away_until[partition] = world.loop.time() + _away(world)
            log.end_transactions()
            log.cut(random.randint(log.start, log.end))
        case "recreate_commands" | "recreate_commands_and_restore":
            world.traffic.away_until[partition] = world.loop.time() + _away(world)
            log.end_transactions()
            log.recreate()
        case "trim_results":
            results.trim(random.randint(results.start, results.end))
        case "compact_commands":
            compact(log, random)
        case _ if disaster == COMMANDS:
            remove_commands(world, partition, random)
        case _ if disaster == RESULTS:
            world.refusable = set()  # once an operator has accepted it
            remove_results(world, partition, random)
        case "cut_results":
            results.cut(random.randint(results.start, results.end))
        case "recreate_results":
            results.cut(0)
        case "add_partitions":
            world.topic.count += 1
            world.refusable = set(range(world.plan.partitions))
        case "foreign_writer":
            results.write([ResultRecord(b"rogue", b'{"who":"somebody else"}', [("ce_id", b"rogue")])])
        case "lose_a_result_and_restore":
            answered = [
                record
                for record in results.records
                if dict(record.headers)["ce_type"] != EventType.ACQUIRED.wire
            ]
            if answered:
                results.records.remove(random.choice(answered))
    if disaster.endswith("_and_restore"):
        world.database_of(partition).fail_over(_ALL)
    world.faults[disaster] = 1
    world.say(
        f"disaster: {disaster} of p{partition}: commands {log.start} to {log.end}, "
        f"results {results.start} to {results.end}"
    )


def _away(world: World) -> float:
    if not world.topic.has_ids:
        return _AWAY_SECONDS
    return Random(f"how long topics are away {world.plan.seed}").choice((0.0, 0.0, _AWAY_SECONDS))
