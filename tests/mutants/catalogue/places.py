"""Where the mutants of the protocol take hold."""

from tests.mutants.mutant import Edit

ACQUIRE = "waypost_worker.partition.acquire:"
OWNERSHIP = "waypost_worker.partition.ownership:"
EMISSION = "waypost_worker.partition.emitter:"
TERM = "waypost_worker.partition.term:"
OWNER = "waypost_worker.partition.owner:Owner."
SEARCH = "waypost_worker.partition.failure:BatchSizer."
FOLDER = "waypost_worker.partition.fold:BatchFolder."
TAIL = "waypost_worker.partition.tail:"
DATABASE = "tests.simulation.database:"
PRODUCERS = "tests.simulation.producers:"
FOUND = "tests/simulation/test_found.py::"
REPLACED = "tests/simulation/test_replaced_logs.py::"
FAILING = "tests/simulation/test_failing_commands.py::"
CLOCKS = "tests/simulation/test_clocks.py::"
REMOVED = "tests/simulation/test_removed_early.py::"
SKIPS = "tests/simulation/test_skips.py::"

NO_RENEWAL = Edit(
    TERM + "Term.run", "while Moment.of(self._clock).since(began) <= self._limits.renew_after:", "while True:"
)
ACQUIRING = "tests/unit/test_acquire.py::"
