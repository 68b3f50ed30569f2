"""Mutants of replay and verify: what they must compare, and what they must leave to the next owner."""

from tests.mutants.mutant import Edit, Mutant

COMPARATOR = "waypost_worker.recovery.verify.comparator:Comparator."
REPLAY = "waypost_worker.recovery.replay.partition_replay:PartitionReplay."

RECOVERY: tuple[Mutant, ...] = (
    Mutant(
        "verify-misses-rows-that-are-gone",
        "verify does not tell of checkpoints that Postgres has lost",
        (
            Edit(
                COMPARATOR + "finish",
                "for session_id, number in sorted(self._checkpoints):",
                "for session_id, number in ():",
            ),
        ),
    ),
    Mutant(
        "verify-passes-over-rows-too-many",
        "verify does not tell of rows that no command made",
        (Edit(COMPARATOR + "_extra", "self._tally.differs(", "str("),),
    ),
    Mutant(
        "verify-forgets-what-is-owed",
        "verify does not tell of results that are neither in the topic nor in the outbox",
        (
            Edit(
                "waypost_worker.recovery.verify.owed_results:ExpectedOutbox.compare",
                "for offset in sorted(missing):",
                "for offset in ():",
            ),
        ),
        tests=(
            "tests/integration/test_verify.py::test_a_lost_outbox_entry_is_found_and_a_whole_one_is_right",
        ),
    ),
    Mutant(
        "replay-owes-nothing",
        "a replay forgets the results that the topic lacks",
        (
            Edit(
                REPLAY + "_batch",
                "items = [item for item in items if item[0] > comparison.highest]",
                "items = []",
            ),
        ),
    ),
    Mutant(
        "replay-owes-what-is-there",
        "a replay leaves results to the next owner that the topic holds",
        (Edit(REPLAY + "_batch", " if item[0] > comparison.highest]", "]"),),
        harmless="the next owner reads from the topic what was emitted, and passes over items up to there",
    ),
    Mutant(
        "replay-compares-nothing",
        "a replay does not hold results against those in the topic",
        (Edit(REPLAY + "_batch", "await comparison.hold(results)", "pass"),),
        tests=("tests/integration/test_replay_results.py::test_the_first_result_that_differs_is_shown",),
    ),
    Mutant(
        "replay-misses-results-that-retention-removed",
        "a replay behind a restored snapshot asks the topic for results that retention has removed since",
        (
            Edit(
                "waypost_worker.recovery.replay.comparison:Comparison.open",
                "self.emitted = max(self.emitted, command_offset(first) - 1)",
                "pass",
            ),
        ),
    ),
    Mutant(
        "verify-forgets-the-defaults-of-a-snapshot",
        "a verification that begins with a snapshot begins with the first default policy",
        (
            Edit(
                "waypost_worker.recovery.verify.base_snapshot:begin",
                "fold.defaults = Defaults(row.default_policy, list(row.default_commands))",
                "pass",
            ),
        ),
    ),
    Mutant(
        "a-restored-outbox-is-dropped",
        "a replay behind a restored snapshot takes what that still owes for emitted",
        (
            Edit(
                REPLAY + "_batch",
                "emitted=comparison.emitted,",
                "emitted=max(comparison.emitted, next_offset - 1),",
            ),
        ),
    ),
)
