"""Mutants of the protocol: every guard and every order taken away, one at a time. The simulation hunts them."""

from tests.mutants.catalogue.places import (
    ACQUIRE,
    ACQUIRING,
    CLOCKS,
    DATABASE,
    EMISSION,
    FOUND,
    NO_RENEWAL,
    OWNERSHIP,
    PRODUCERS,
    REMOVED,
    TERM,
)
from tests.mutants.mutant import Edit, Mutant

_NO_WAIT = Edit(ACQUIRE + "acquire", "await sleep(limits.proof_lifetime)\n", "pass\n")
_NO_PROOF = Edit(OWNERSHIP + "OwnershipProof.check", "if age > self._valid:", "if False:")
_ANY_RECORD_ENDS_THE_TAIL = Edit(ACQUIRE + "_read_tail", "if tail.last_value != fence.value:", "if False:")
_CAS_WITHOUT_EPOCH = Edit(
    DATABASE + "SimulatedStore._commit",
    "tables = self._owned(commit.epoch, producer)",
    "tables = self._tables(None)",
)
_CAS_WITHOUT_OFFSET = Edit(
    DATABASE + "SimulatedStore._commit", "if tables.next_offset != commit.expected_offset:", "if False:"
)

PROTOCOL: tuple[Mutant, ...] = (
    Mutant(
        "cut-results-unnoticed",
        "nobody asks whether applied commands are answered in the topic or owed by the outbox",
        (
            Edit(
                ACQUIRE + "acquire",
                "await _check_complete(log, acquired.next_offset, tail.highest, owed)",
                "pass",
            ),
        ),
        tests=(REMOVED + "test_results_that_were_only_compared_and_then_cut_are_missed",),
    ),
    # The compare-and-set in Postgres.
    Mutant("cas-without-epoch", "the compare-and-set looks at the offset only", (_CAS_WITHOUT_EPOCH,)),
    Mutant(
        "cas-without-producer",
        "the compare-and-set does not look at the recorded producer",
        (Edit(DATABASE + "SimulatedStore._owned", "if tables.producer != producer:", "if False:"),),
        tests=(FOUND + "test_of_two_owners_with_one_epoch_only_the_one_whose_producer_is_recorded_commits",),
    ),
    Mutant("cas-without-offset", "the compare-and-set looks at the epoch only", (_CAS_WITHOUT_OFFSET,)),
    Mutant("no-cas", "batches are committed unconditionally", (_CAS_WITHOUT_EPOCH, _CAS_WITHOUT_OFFSET)),
    Mutant(
        "epoch-not-raised",
        "acquiring leaves the epoch as it is",
        (Edit(DATABASE + "SimulatedStore._acquire", "tables.epoch += 1", "tables.epoch += 0"),),
    ),
    Mutant(
        "position-without-epoch",
        "the results position is saved by whoever comes",
        (
            Edit(
                DATABASE + "SimulatedStore._save_position",
                "self._owned(epoch, producer)\n    tables = self._tables(held)",
                "tables = self._tables(None)",
            ),
        ),
    ),
    Mutant(
        "position-of-a-twin",
        "an owner saves its results position although Postgres has lost commits of its own",
        (Edit(DATABASE + "SimulatedStore._save_position", "self._tables(held)", "self._tables(None)"),),
        tests=(FOUND + "test_a_results_position_is_not_saved_over_that_of_commits_that_were_lost",),
    ),
    Mutant(
        "broker-without-epochs",
        "the broker takes plain batches of any epoch",
        (Edit(PRODUCERS + "Producers.judge", "if fence.producer_epoch < producer.epoch:", "if False:"),),
    ),
    Mutant(
        "no-fence-record",
        "acquiring claims an epoch, but appends nothing under it before the tail is read",
        (
            Edit(
                ACQUIRE + "acquire",
                "        tail_end = await results.append([record]) + 1\n    clock_ahead",
                "        tail_end = (await results.bounds())[1]\n    clock_ahead",
            ),
            _ANY_RECORD_ENDS_THE_TAIL,
        ),
    ),
    Mutant(
        "tail-to-the-old-end",
        "the tail is read up to where the topic ended before the fence",
        (
            Edit(
                ACQUIRE + "acquire",
                "fence = await results.claim()",
                "old_end = (await results.bounds())[1]\n    fence = await results.claim()",
            ),
            Edit(
                ACQUIRE + "acquire",
                "results_start, tail_end, record)\n    others",
                "results_start, old_end, record)\n    others",
            ),
            _ANY_RECORD_ENDS_THE_TAIL,
        ),
    ),
    Mutant(
        "tail-not-read",
        "what was emitted is taken from the stored position alone",
        (
            Edit(
                ACQUIRE + "_read_tail",
                "tail.take(records, acquired.next_offset, [found.producer_of(record) for record in records])",
                "pass",
            ),
        ),
    ),
    Mutant(
        "no-wait-for-the-old-producer-id",
        "a new producer id is used at once",
        (_NO_WAIT, Edit(ACQUIRE + "acquire", "await sleep(results.unanswered_append_seconds)", "pass")),
    ),
    Mutant(
        "wait-only-for-what-is-under-way",
        "with a new producer id, owners that still trust their proof are not waited for",
        (_NO_WAIT,),
        tests=(FOUND + "test_an_owner_that_wakes_up_with_another_producer_id_doubles_nothing",),
    ),
    Mutant(
        "only-the-stored-producer-id",
        "a producer id that Postgres forgot is not waited for, although the fence records have it",
        (
            Edit(
                ACQUIRE + "acquire", "(tail.producer_ids | {acquired.producer_id})", "{acquired.producer_id}"
            ),
        ),
        tests=(FOUND + "test_an_owner_that_wakes_up_after_postgres_forgot_its_producer_id_doubles_nothing",),
    ),
    Mutant(
        "new-producer-id-stored-at-once",
        "the new producer id is stored before the old one is waited out",
        (
            Edit(
                ACQUIRE + "acquire",
                "    proof.check()\n    record =",
                "    await store.record_claim(acquired.epoch, fence)\n    proof.check()\n    record =",
            ),
        ),
        tests=(FOUND + "test_a_producer_id_counts_only_once_the_former_one_was_waited_out",),
    ),
    Mutant(
        "end-from-a-former-leader",
        "after the wait for older owners the end of the results topic is asked for, not learnt from an append",
        (
            Edit(
                ACQUIRE + "acquire",
                "    tail_end = await results.append([record]) + 1\n        tail =",
                "    tail_end = (await results.bounds())[1]\n        tail =",
            ),
            _ANY_RECORD_ENDS_THE_TAIL,
        ),
        tests=(FOUND + "test_an_end_from_a_former_leader_is_not_taken_for_that_of_the_results_topic",),
    ),
    Mutant("no-proof", "an owner that was frozen appends on what it knew before", (_NO_PROOF,)),
    Mutant(
        "proof-by-boot-time-alone",
        "the age of a proof does not count what only the wall clock counted",
        (
            Edit(
                OWNERSHIP + "Moment.since",
                "max(self.boottime - earlier.boottime, self.walltime - earlier.walltime)",
                "self.boottime - earlier.boottime",
            ),
        ),
        tests=(CLOCKS + "test_a_machine_that_was_paused_until_brokers_forgot_its_fence_doubles_nothing",),
    ),
    Mutant(
        "proof-by-wall-clock-alone",
        "a wall clock that is set back makes a proof younger",
        (
            Edit(
                OWNERSHIP + "Moment.since",
                "max(self.boottime - earlier.boottime, self.walltime - earlier.walltime)",
                "self.walltime - earlier.walltime",
            ),
        ),
        tests=("tests/unit/test_emitter.py::test_a_wall_clock_that_is_set_back_makes_no_proof_younger",),
    ),
    Mutant(
        "fence-by-a-slow-clock",
        "a worker takes partitions over however slow its clock is, although fences live by it",
        (Edit(ACQUIRE + "_check_clock", "> SLOWEST_CLOCK:", "> 1e9:"),),
        tests=(CLOCKS + "test_a_worker_whose_clock_is_far_behind_writes_no_fence_that_lives_by_it",),
    ),
    Mutant(
        "fence-that-left-the-log",
        "an owner does not ask whether the results topic still holds its fence",
        (Edit(TERM + "Term.run", "if await self._fence_left_the_log():", "if False:"),),
        tests=(FOUND + "test_an_owner_whose_fence_was_removed_from_the_topic_writes_another",),
    ),
    Mutant(
        "no-fence-after-a-lapse",
        "an owner whose proofs were too far apart appends without looking whether another one has",
        (Edit(EMISSION + "emit", "while proof.lapsed:", "while False:"),),
        tests=(FOUND + "test_a_restore_to_the_moment_of_a_frozen_owner_lets_it_double_nothing",),
    ),
    Mutant(
        "lapse-forgotten-during-the-fence",
        "a fence record makes up for a lapse that came while it was under way",
        (
            Edit(
                OWNERSHIP + "OwnershipProof.fencing",
                "yield\n    self._fenced_lapses = lapses",
                "yield\n    self._fenced_lapses = self._lapses",
            ),
        ),
        tests=(
            "tests/unit/test_emitter.py::test_a_lapse_while_the_fence_record_is_under_way_needs_another_one",
        ),
    ),
    Mutant(
        "proof-from-the-answer",
        "the proof of ownership counts from when the answer was read, not from when it was asked for",
        (
            Edit(
                OWNERSHIP + "OwnershipProof.renewed",
                "self._at = asked_at",
                "self._at = Moment.of(self._clock)",
            ),
        ),
    ),
    Mutant(
        "fence-without-proof",
        "who slept after its claim appends a fence record all the same",
        (
            Edit(
                ACQUIRE + "acquire",
                "fence = await results.claim()\n    proof.check()",
                "fence = await results.claim()",
            ),
        ),
        tests=(ACQUIRING + "test_who_slept_after_its_claim_appends_no_fence_record",),
    ),
    Mutant(
        "second-fence-without-proof",
        "who slept after the wait for older owners appends its second fence record all the same",
        (
            Edit(
                ACQUIRE + "acquire",
                "proof.check()\n        with proof.fencing():\n            tail_end",
                "with proof.fencing():\n            tail_end",
            ),
        ),
        tests=(ACQUIRING + "test_who_slept_after_the_wait_for_older_owners_appends_no_second_fence_record",),
    ),
    Mutant(
        "fence-of-another-taken-for-the-own",
        "nobody looks whether the record at the end of the tail is the fence record that was appended",
        (_ANY_RECORD_ENDS_THE_TAIL,),
        tests=(ACQUIRING + "test_a_fence_record_that_is_taken_for_another_owner_s_fences_nothing",),
    ),
    Mutant(
        "value-not-in-the-anchor",
        "a record with another value has the same anchor",
        (
            Edit(
                "waypost_worker.partition.anchor:anchor_of",
                "for part in (record.key, record.value):",
                "for part in (record.key,):",
            ),
        ),
        tests=("tests/unit/test_anchor.py",),
    ),
    Mutant("no-renewal", "a term never ends by itself", (NO_RENEWAL,)),
    Mutant(
        "no-renewal-no-proof",
        "a term never ends by itself, and a frozen owner trusts what it knew",
        (NO_RENEWAL, _NO_PROOF),
    ),
    # Emission.
    Mutant(
        "emission-before-commit",
        "results are emitted while the batch is being committed",
        (
            Edit(
                TERM + "Term._apply",
                "with acquired.proof.renewed():",
                "emission.add(AppliedBatch(commands, others, made, results, changes.rejected, 0, 0, 0))\n"
                "    results = []\n"
                "    with acquired.proof.renewed():",
            ),
        ),
    ),
    Mutant(
        "emission-not-awaited",
        "whether results were appended is never looked at",
        (
            Edit(EMISSION + "ResultEmitter.check", "self._task.result()", "pass"),
            Edit(EMISSION + "ResultEmitter.done", "await self._task\n", "await asyncio.wait({self._task})\n"),
        ),
    ),
    Mutant(
        "emission-out-of-order",
        "batches that waited for an append go out newest first",
        (
            Edit(
                EMISSION + "ResultEmitter._append_all",
                "for batch in batches for one in batch.results",
                "for batch in reversed(batches) for one in batch.results",
            ),
        ),
    ),
    Mutant(
        "emission-ends-after-one-append",
        "what was committed while an append was under way is left lying",
        (Edit(EMISSION + "ResultEmitter._append_all", "while self._waiting:", "if self._waiting:"),),
        tests=("tests/unit/test_emitter.py",),
    ),
    Mutant(
        "emission-without-bound",
        "owners commit on however much waits to be emitted",
        (Edit(EMISSION + "ResultEmitter.room", "while self._full() and", "while False and"),),
        tests=("tests/unit/test_emitter.py",),
    ),
    Mutant(
        "pieces-of-any-size",
        "all that waits is appended at once, whatever the topic takes",
        (Edit(EMISSION + "pieces", "if size + weight > EMIT_BYTES and index > first:", "if False:"),),
    ),
    Mutant(
        "base-offset-unchecked",
        "results may land at any offset",
        (Edit(EMISSION + "_append", "if base != position.results_offset:", "if False:"),),
    ),
    Mutant(
        "piece-counted-before-it-is-appended",
        "the results position moves on before Kafka has answered",
        (
            Edit(
                EMISSION + "emit",
                "        await _append(",
                "        position.emitted = piece[-1][0]\n        await _append(",
            ),
        ),
    ),
    # The outbox.
    Mutant(
        "outbox-dropped-early",
        "a commit confirms the results of its own batch",
        (Edit(TERM + "Term._apply", "emitted=emitted,", "emitted=last.offset,"),),
    ),
    Mutant(
        "outbox-empty",
        "nothing is kept of the results that are to be emitted",
        (Edit(TERM + "Term._apply", "outbox.pack(items)", "outbox.pack([])"),),
    ),
    Mutant(
        "outbox-in-a-transaction-of-its-own",
        "the outbox entry is written after the batch",
        (
            Edit(
                DATABASE + "SimulatedStore.commit",
                "effect = partial(self._commit, self._producer, commit, _frozen(commit))",
                "empty = replace(commit, outbox=commit.outbox._replace(payload=b'[]'))\n"
                "    effect = partial(self._commit, self._producer, empty, _frozen(commit))",
            ),
            Edit(
                DATABASE + "SimulatedStore.commit",
                "self._held = (commit.epoch, commit.next_offset)",
                "def write() -> None:\n"
                "        tables = self._database.owned(self._partition, commit.epoch).copy()\n"
                "        tables.outbox[commit.outbox.first_offset] = commit.outbox\n"
                "        self._database.put(self._partition, tables)\n"
                "    await self._call('outbox', write)\n"
                "    self._held = (commit.epoch, commit.next_offset)",
            ),
        ),
    ),
    Mutant(
        "outbox-ignored",
        "an outbox found when acquiring is not finished",
        (Edit(ACQUIRE + "_finish_outbox", "for items in owed:", "for items in ():"),),
    ),
    Mutant(
        "outbox-emitted-whole",
        "an outbox entry is emitted again also where some of it is in the topic",
        (Edit(ACQUIRE + "_owed", " if item[0] > highest]", "]"),),
    ),
    Mutant(
        "outbox-skipped-whole",
        "an outbox entry of which some is in the topic is taken for emitted",
        (
            Edit(
                ACQUIRE + "_owed",
                "if entry.last_offset <= highest:",
                "if entry.first_offset <= highest:",
            ),
        ),
    ),
    Mutant(
        "removed-ids-not-emitted-again",
        "the result of a create that is made again does not say what retention removed",
        (Edit("waypost_worker.partition.outbox:_result", "tuple(item[2]))", "())"),),
    ),
    Mutant(
        "group-outcomes-of-others",
        "an owner gets the outcome of another batch of its group",
        (
            Edit(
                "waypost_worker.partition.grouping:Grouper._run_group",
                "zip(group, outcomes, strict=True)",
                "zip(group, [*outcomes[1:], *outcomes[:1]], strict=True)",
            ),
        ),
        tests=(
            "tests/simulation/test_groups.py::test_one_that_is_fenced_ends_its_own_term_and_nobody_else_s",
        ),
    ),
    Mutant(
        "group-lost-in-doubt-counts",
        "an owner takes its batch for committed when the reply to its group was lost",
        (
            Edit(
                "tests.simulation.group_commit:SimulatedCommitter._in_doubt",
                "return [UnavailableError(str(error)) for _ in group]",
                "return [None if ' commit ' in one.what else UnavailableError(str(error)) for one in group]",
            ),
        ),
    ),
    Mutant(
        "group-repeated-without-the-guard",
        "a group whose reply was lost is repeated one by one, and no batch is compared with the position",
        (
            Edit(
                "tests.simulation.group_commit:SimulatedCommitter._in_doubt",
                "return [UnavailableError(str(error)) for _ in group]",
                "raise UndoneError(error) from error",
            ),
            _CAS_WITHOUT_OFFSET,
        ),
        tests=(
            "tests/simulation/test_groups.py::"
            "test_a_group_whose_reply_is_lost_is_in_doubt_as_a_whole_and_counts_once",
        ),
    ),
)
