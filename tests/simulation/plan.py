"""What one seed is about: how many of everything, and which faults. A few kinds at a time, so that they meet."""

from dataclasses import dataclass
from random import Random

from tests.simulation.removed_early import COMMANDS, RESULTS

from waypost.model.index import DEDUP_WINDOW, FORGET_ABOVE
from waypost_worker.partition.kept import PART_ROWS, PARTS

# Each kind of fault with how often it is part of a seed; the chaos says what each does.
FAULTS: dict[str, float] = {
    "crash": 0.5,
    "pause": 0.5,
    "long_pause": 0.15,
    "race": 0.5,
    "handover": 0.4,
    "kafka_weather": 0.5,
    "postgres_weather": 0.5,
    "kafka_outage": 0.2,
    "postgres_outage": 0.2,
    "leader_change": 0.3,
    "postgres_cut": 0.3,
    "failover": 0.3,
    "restore": 0.1,
    "stuck": 0.1,
    "all_asleep": 0.1,
    "trim_answered": 0.2,
}
# The same, of kinds that were thought of later: drawn apart, so that older seeds keep what they had.
LATER_FAULTS: dict[str, float] = {
    "appends_refused": 0.2,
    "former_leader": 0.2,
    "split_brain": 0.2,
}
# And later still, in a part of the seeds only, so that the others keep what they had.
LATEST_FAULTS: dict[str, float] = {
    "machine_pause": 0.4,
    "long_machine_pause": 0.3,
    "clock_set": 0.4,
    "read_only": 0.4,
    "epoch_given_twice": 0.3,
}
LOSSY = frozenset(("failover", "restore", "split_brain"))  # Postgres loses transactions
# What changes a log underneath an owner; at most one of these in a seed, and only in some seeds.
DISASTERS = (
    "trim_commands",
    "cut_commands",
    "recreate_commands",
    "trim_results",
    "cut_results",
    "recreate_results",
    "add_partitions",
    "foreign_writer",
    "recreate_commands_and_restore",
    "lose_a_result_and_restore",
)
# The same, thought of later: in some of the seeds that have none of the above.
LATER_DISASTERS = (COMMANDS, RESULTS, "compact_commands")


@dataclass(slots=True)
class WorldPlan:
    """All choices that a seed makes before its world begins. Times in seconds."""

    seed: int
    processes: int = 2
    partitions: int = 2
    shards: int = 1  # databases that hold the partitions between them
    sessions: int = 3
    commands: int = 40
    duration: float = 20.0
    transactions: float = 0.05
    batch_records: int = 10
    batch_bytes: int = 4 * 1024 * 1024
    cache_items: int = 400_000
    emit_bytes: int = 4 * 1024 * 1024
    transactional_expiry: float = 600.0
    epochs: int = 32_767
    shuffle: bool = False
    calm: float = 2.0  # mean time between two faults
    faults: tuple[str, ...] = ()
    disaster: str | None = None
    late_zombies: float = 0.0  # how likely sleepers sleep on while the world heals
    publishers: int = (
        0  # processes that publish with the real publisher; what else comes is appended directly
    )
    message_bytes: int = 1_048_588  # max.message.bytes of the command topic
    topic_ids: bool = True  # whether brokers have them (Kafka 3.1)
    snapshots: bool = False  # whether there are some for verification to begin with
    remembered: tuple[int, int] = (
        DEDUP_WINDOW,
        FORGET_ABOVE,
    )  # command ids kept, and how many may wait to go
    rejected_parts: tuple[int, int] = (PARTS, PART_ROWS)  # of the rejected commands that are kept
    openings: float = 0.0  # how likely a connection has to be opened before an append
    together: bool = False  # agents of all partitions publish at the same time
    commit_wait: float = 0.0  # the longest that a commit waits for a connection
    rolled_back: float = 0.0  # how likely Postgres rolls a commit of several partitions back


def plan_of(seed: int) -> WorldPlan:
    """The plan of a seed."""
    random = Random(seed)
    chance = random.random
    plan = WorldPlan(
        seed=seed,
        processes=random.choice((2, 2, 3)),
        partitions=random.choice((1, 2, 2, 3)),
        sessions=random.randrange(1, 4),
        commands=random.randrange(20, 60),
        duration=random.choice((8.0, 20.0, 50.0)),
        transactions=random.choice((0.0, 0.05, 0.2)),
        batch_records=random.choice((1, 3, 10, 1000)),
        batch_bytes=random.choice((1000, 4 * 1024 * 1024)),
        cache_items=random.choice((1, 40, 400_000)),
        emit_bytes=random.choice((1, 2000, 4 * 1024 * 1024)),
        epochs=random.choice((2, 5, 32_767, 32_767, 32_767)),
        shuffle=chance() < 0.5,
        calm=random.choice((0.3, 1.0, 3.0)),
        faults=tuple(fault for fault, share in FAULTS.items() if chance() < share),
        disaster=random.choice(DISASTERS) if chance() < 0.15 else None,
        late_zombies=random.choice((0.0, 0.5, 1.0)),
    )
    more = Random(f"more {seed}")  # so that what came before stays as it was
    plan.publishers = more.choice((0, 0, 1, 2))
    plan.message_bytes = more.choice((1_048_588, 1_048_588, 800))
    plan.remembered = more.choice(((DEDUP_WINDOW, FORGET_ABOVE), (2, 5)))
    plan.faults += tuple(fault for fault, share in LATER_FAULTS.items() if more.random() < share)
    plan.rejected_parts = Random(f"rejected commands of {seed}").choice(((PARTS, PART_ROWS), (3, 2), (2, 1)))
    if plan.disaster is None and Random(f"foreign results of {seed}").random() < 0.2:
        plan.faults += ("foreign_results",)
    if Random(f"poison of {seed}").random() < 0.2:
        plan.faults += ("poison",)
    _plan_the_latest(plan, Random(f"latest of {seed}"))
    if "split_brain" in plan.faults and (plan.disaster is not None or plan.epochs < 100):
        # Two databases at once: an owner of a new producer id can't tell that one of another id is at work.
        plan.faults = tuple(fault for fault in plan.faults if fault != "split_brain")
    if "split_brain" in plan.faults:
        plan.faults = tuple(fault for fault in plan.faults if fault != "all_asleep")
    if plan.partitions > 1:
        plan.shards = Random(f"how many databases {seed}").choice((1, 1, 2))
    plan.topic_ids = Random(f"topic ids {seed}").random() < 0.7
    plan.snapshots = Random(f"keeps snapshots {seed}").random() >= 0.5
    if plan.partitions > 1 and Random(f"connections of {seed}").random() < 0.3:
        plan.openings = 0.8
        plan.commands *= 3
    groups = Random(f"batches that meet in {seed}")
    if groups.random() < 0.4:
        plan.together = True
        plan.partitions = groups.choice((2, 3, 4, 5))
        plan.commands = plan.commands * 2 // plan.partitions
        plan.commit_wait = groups.choice((0.01, 0.1, 0.5))
        plan.rolled_back = groups.choice((0.0, 0.3))
    lossy = LOSSY & set(plan.faults)
    if plan.disaster == "add_partitions" and lossy:
        # A database that lost everything rightly takes the new count for the first.
        plan.disaster = None
    if plan.disaster is not None and plan.disaster.endswith("_and_restore"):
        # What was answered may have to be answered again.
        plan.faults = tuple(fault for fault in plan.faults if fault != "trim_answered")
    return plan


def _plan_the_latest(plan: WorldPlan, random: Random) -> None:
    """Add what was thought of last."""
    if random.random() < 0.4:
        plan.faults += tuple(fault for fault, share in LATEST_FAULTS.items() if random.random() < share)
    if random.random() < 0.1 and plan.disaster is None and "foreign_results" not in plan.faults:
        plan.disaster = random.choice(LATER_DISASTERS)
    if plan.disaster == RESULTS and (plan.epochs < 100 or "all_asleep" in plan.faults):
        # With the fence records, a producer id that Postgres has lost as well is known to nobody any more.
        plan.disaster = COMMANDS
