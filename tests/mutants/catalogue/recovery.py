"""Mutants of replay and verify: what they must compare, and what they must leave to the next owner."""

from tests.mutants.catalogue.places import ACQUIRE, TAIL, TERM
from tests.mutants.mutant import Edit, Mutant

COMPARATOR = "waypost_worker.recovery.verify.comparator:Comparator."
FOREIGN = "tests/integration/test_foreign_results.py::"
KEPT = "waypost_worker.partition.kept:"
REPLAY = "waypost_worker.recovery.replay.partition_replay:PartitionReplay."

RECOVERY: tuple[Mutant, ...] = (
    Mutant(
        "replay-of-a-shorter-log",
        "a replay does not ask whether the log has the last command that was answered",
        (
            Edit(
                "waypost_worker.recovery.replay.preflight:plan_partition",
                "await check_last_answer(log, results, begin)",
                "pass",
            ),
        ),
        tests=("tests/unit/test_last_answer.py::test_a_replay_refuses_a_log_that_lacks_answered_commands",),
    ),
    Mutant(
        "verification-of-a-shorter-log",
        "a verification does not ask whether the log has the last command that was answered",
        (
            Edit(
                "waypost_worker.recovery.verify.verification:Verification._pass",
                "await check_last_answer(self._log, results, (await self._log.bounds())[0])",
                "pass",
            ),
        ),
        tests=(
            "tests/unit/test_last_answer.py::test_a_verification_refuses_a_log_that_lacks_answered_commands",
        ),
    ),
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
                "fold.state = row.state()",
                "pass",
            ),
        ),
    ),
    Mutant(
        "verify-forgets-the-last-activity-of-a-snapshot",
        "a verification that begins with a snapshot takes its sessions for always silent ones",
        (
            Edit(
                "waypost_worker.recovery.verify.base_snapshot:begin",
                "*held, stored.last_recorded_at,",
                "*held, 0,",
            ),
        ),
    ),
    Mutant(
        "verify-forgets-which-rejections-a-snapshot-keeps",
        "a verification that begins with a snapshot counts rejected commands from its position only",
        (
            Edit(
                "waypost_worker.recovery.verify.base_snapshot:begin",
                "fold.window = row.rejected_window",
                "pass",
            ),
        ),
    ),
    Mutant(
        "verify-misses-the-oldest-rejection",
        "verify --strict takes a rejected command that is older than all stored ones for one that made room",
        (
            Edit(
                COMPARATOR + "finish",
                "if offset < self._rejected_below:",
                "if offset < min(set(self._fold.rejected) - self._rejected, default=0):",
            ),
        ),
    ),
    Mutant(
        "verify-misses-a-rejection-that-should-be-gone",
        "verify does not tell of rejected commands that should have made room for newer ones",
        (Edit(COMPARATOR + "rejected", "if row.offset < self._rejected_below:", "if False:"),),
        tests=("tests/unit/test_memory_fold.py",),
    ),
    Mutant(
        "rejections-make-no-room",
        "a partition keeps every rejected command",
        (Edit(KEPT + "make_room", "if len(parts) > PARTS:", "if False:"),),
    ),
    Mutant(
        "rejections-are-counted-anew-by-each-owner",
        "an owner counts only the rejected commands of its own term",
        (
            Edit(
                TERM + "Term.run",
                "self._encoder, store, acquired.state, acquired.rejected_window, self._cache_room",
                "self._encoder, store, acquired.state, type(acquired.rejected_window)(), self._cache_room",
            ),
        ),
    ),
    Mutant(
        "rejections-that-made-room-stay-in-postgres",
        "the commit does not delete rejected commands that make room",
        (Edit("sql:commit", "where $55::bigint > 0 and", "where $55::bigint < 0 and"),),
        tests=("tests/conformance/test_store_batches.py",),
    ),
    Mutant(
        "rejections-that-made-room-are-stored",
        "rejected commands of a batch that make room in the same batch are stored all the same",
        (
            Edit(
                "waypost_worker.partition.ports:Changes.kept_rejections",
                "if row.offset >= self.rejected_below",
                "if row is not None",
            ),
        ),
        tests=("tests/conformance/test_store_batches.py",),
    ),
    Mutant(
        "a-long-wording-makes-room",
        "the message of a rejection counts, whose wording may change between versions",
        (Edit(KEPT + "kept_size", 'len(row.key or b"")', 'len(row.message) + len(row.key or b"")'),),
        tests=("tests/unit/test_record_bounds.py",),
    ),
    Mutant(
        "forged-results-count",
        "an owner takes the results of any producer for those of owners",
        (Edit(TAIL + "EmittedTail.take", "producer_id not in self._owners:", "not self._owners:"),),
        tests=(FOREIGN + "test_a_forged_result_does_not_replace_pending_answers",),
    ),
    Mutant(
        "accepted-records-count",
        "an owner does not pass over the foreign records that an operator accepted",
        (Edit(ACQUIRE + "_read_tail", "without_foreign(results, acquired.foreign_results)", "results"),),
    ),
    Mutant(
        "an-accepted-offset-stands-for-any-record",
        "another record at the offset of an accepted one is passed over",
        (
            Edit(
                "waypost_worker.partition.foreign:_WithoutForeign._is_accepted",
                " and accepted_record(record) in self._accepted",
                "",
            ),
        ),
        tests=(FOREIGN + "test_another_record_at_an_accepted_offset_is_refused_again",),
    ),
    Mutant(
        "results-of-workers-can-be-accepted",
        "an operator can have workers pass over results that a worker wrote",
        (
            Edit(
                "waypost_worker.recovery.foreign_results:find_foreign",
                "if producer_id in owners:",
                "if producer_id in ():",
            ),
        ),
        tests=(FOREIGN + "test_results_of_workers_cannot_be_accepted",),
    ),
    Mutant(
        "former-owners-are-forgotten",
        "the results of an owner that had another producer id count as foreign",
        (
            Edit(
                "sql:record_claim",
                "then p.former_producer_ids || to_jsonb(p.producer_id)",
                "then p.former_producer_ids",
            ),
        ),
        tests=("tests/conformance/test_store.py",),
    ),
    Mutant(
        "a-replay-knows-all-owners",
        "behind the position of a replay, only owners that the database knows can have written",
        (
            Edit(
                "sql:commit",
                "case when $57 then former_producer_ids end",
                "case when $57 or true then former_producer_ids end",
            ),
        ),
        tests=("tests/conformance/test_store.py",),
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
