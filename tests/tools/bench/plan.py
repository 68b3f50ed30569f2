"""The plan of one benchmark run: sizes, counts, rates. Data only."""

from dataclasses import asdict, dataclass
from typing import Any, Final

PARTITIONS: Final = 3
SESSIONS: Final = 2_000
DATA_BYTES: Final = 1_024

# Throughput is taken between these parts of the results: what comes before is start-up and first contact with
# each session, what comes after is the last partition finishing alone.
FROM_PART: Final = 0.10
TO_PART: Final = 0.95

# Postgres' own defaults, fsync on, and room enough that no checkpoint falls into one run and not into another:
# a checkpoint is asked for before each.
POSTGRES_SETTINGS: Final = {"max_wal_size": "4GB", "checkpoint_timeout": "1h"}


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """Sizes of a run. Each figure is taken ``repeats`` times, the two systems in turn.

    ``commands`` per throughput run; ``seconds`` at each of ``rates`` (commands per second) for latency; before that,
    ``warm_up`` seconds at the highest of them; ``batches`` are the sizes that the bare loop tries, with ``probe``
    commands each; ``rows`` for COPY alone.
    """

    name: str
    repeats: int
    commands: int
    seconds: float
    warm_up: float
    rates: tuple[int, ...]
    probe: int
    batches: tuple[int, ...]
    rows: int

    def to_dict(self) -> dict[str, Any]:
        """For the report."""
        return {
            **asdict(self),
            "partitions": PARTITIONS,
            "sessions": SESSIONS,
            "data_bytes": DATA_BYTES,
            "measured_from_part": FROM_PART,
            "measured_to_part": TO_PART,
        }


SHORT: Final = BenchPlan("short", 3, 60_000, 6, 25, (200, 1_000), 30_000, (500, 1_000), 40_000)
# 100,000 commands are 50 for each session: as many as a session holds before retention removes any.
FULL: Final = BenchPlan(
    "full", 5, 100_000, 30, 40, (200, 1_000, 2_000, 5_000), 60_000, (250, 500, 1_000, 2_000), 100_000
)
