"""What one seed is about: how many of everything, and which faults (a few at a time, so that they combine)."""

from dataclasses import dataclass, field
from random import Random

FAULTS = ()


@dataclass(slots=True)
class Plan:
    """All choices that a seed makes before its world begins. Times in seconds."""

    seed: int
    processes: int = 2
    partitions: int = 2
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
    faults: frozenset[str] = field(default_factory=frozenset)


def plan_of(seed: int) -> Plan:
    """The plan of a seed."""
    random = Random(seed)
    chance = random.random
    return Plan(
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
        shuffle=chance() < 0.5,
    )
