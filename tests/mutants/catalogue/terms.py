"""More mutants of the protocol: positions, logs that change underneath, memory, the rest of a term."""

from tests.mutants.catalogue.places import (
    ACQUIRE,
    DATABASE,
    FAILING,
    FOLDER,
    FOUND,
    NO_RENEWAL,
    OWNER,
    OWNERSHIP,
    REMOVED,
    REPLACED,
    SEARCH,
    SKIPS,
    TAIL,
    TERM,
)
from tests.mutants.mutant import Edit, Mutant

_LOST_REQUEST = "test_an_order_holds_though_its_request_was_lost"

TERMS: tuple[Mutant, ...] = (
    # The results position (E, F).
    Mutant(
        "position-without-its-command",
        "F is saved without its E",
        (
            Edit(
                OWNERSHIP + "Position.to_store",
                "return self.emitted, self.results_offset",
                "return self.found[0], self.results_offset",
            ),
        ),
    ),
    Mutant(
        "position-moves-during-replay",
        "the results position moves on while results are only compared",
        (Edit(OWNERSHIP + "Position.to_store", "if next_offset <= self.suppressed_up_to:", "if False:"),),
    ),
    Mutant(
        "nothing-suppressed",
        "after Postgres lost commits, results that are in the topic are emitted again",
        (Edit(ACQUIRE + "acquire", "suppressed_up_to=tail.highest", "suppressed_up_to=-1"),),
    ),
    Mutant(
        "nothing-compared",
        "replayed results are not held against the topic",
        (Edit(TERM + "Term._compare", "self._acquired.tail.compare(offset, record)", "pass"),),
    ),
    Mutant(
        "doubles-behind-the-position-passed-over",
        "commands that are applied already may be answered in any order, and twice",
        (
            Edit(
                TAIL + "EmittedTail.take",
                "if offset <= self.highest:",
                "if offset >= from_offset and offset <= self.highest:",
            ),
        ),
        tests=("tests/unit/test_emitted_tail.py::test_a_command_that_is_answered_twice_is_refused",),
    ),
    Mutant(
        "missing-result-not-noticed",
        "a command below R that has no result in the topic is passed over",
        (
            Edit(
                TAIL + "EmittedTail.compare",
                "if offset <= self._emitted or",
                "if offset <= self._emitted or offset not in self._offsets or",
            ),
        ),
        tests=(FOUND + "test_a_result_that_is_missing_in_the_middle_is_refused_when_the_log_is_replayed",),
    ),
    Mutant(
        "missing-result-of-the-outbox",
        "a result that is in the outbox, and missing in the topic before later ones, counts as emitted",
        (
            Edit(
                TAIL + "EmittedTail.lacks",
                "return is_looked_for and offset not in self._answered",
                "return False",
            ),
        ),
        tests=(FOUND + "test_a_result_that_went_missing_before_later_ones_were_emitted_is_refused",),
    ),
    # Logs that change underneath.
    Mutant(
        "anchor-unchecked",
        "the last applied record is not looked for in the command topic",
        (
            Edit(
                ACQUIRE + "check_log",
                "if not records or anchor_of(records[-1]) != anchor:",
                "if False:",
            ),
        ),
    ),
    Mutant(
        "end-of-commands-unchecked",
        "a command topic that ends before the stored position is accepted when acquiring",
        (Edit(ACQUIRE + "check_log", "if position > end:", "if False:"),),
        harmless="the anchored record is then missing too, and fetching behind the end is refused as well",
    ),
    Mutant(
        "start-of-commands-unchecked",
        "a command topic that begins behind the stored position is accepted when acquiring",
        (Edit(ACQUIRE + "check_log", "if position < start:", "if False:"),),
        tests=(
            REMOVED
            + "test_commands_that_were_removed_before_they_were_applied_are_counted_and_stop_the_partition",
        ),
    ),
    Mutant(
        "removed-results-accepted-unasked",
        "results that were removed before they were compared need nobody's word",
        (
            Edit(
                ACQUIRE + "_check_results",
                "acquired.results_offset < start and",
                "False and",
            ),
        ),
        tests=(REMOVED + "test_results_that_were_removed_before_they_were_compared_need_the_operators_word",),
    ),
    Mutant(
        "removed-results-never-accepted",
        "a restored database can't catch up if results were removed, although an operator accepted that",
        (Edit(TAIL + "EmittedTail.__init__", "start <= results_offset", "True"),),
        tests=(REMOVED + "test_a_restored_database_catches_up_although_results_were_removed",),
    ),
    Mutant(
        "all-accepted-with-removed-results",
        "who accepts removed results also accepts that one is missing behind them",
        (
            Edit(
                TAIL + "EmittedTail.take",
                "self._is_first_known, self._first_answered = True, offset",
                "self._first_answered = offset",
            ),
        ),
        tests=(REMOVED + "test_a_result_that_is_missing_behind_removed_ones_is_refused_all_the_same",),
    ),
    Mutant(
        "removed-answers-asked-for-all-the-same",
        "an operator's word does not stand for answers that are neither in the topic nor owed",
        (Edit(ACQUIRE + "acquire", "if not limits.accept_trimmed_results:", "if True:"),),
        tests=(REMOVED + "test_results_that_were_only_compared_and_then_removed_come_once",),
    ),
    Mutant(
        "results-behind-the-commands-accepted",
        "results of commands that the command topic does not have are accepted",
        (Edit(ACQUIRE + "acquire", "if restored:", "if False:"),),
        tests=(REPLACED + "test_results_of_commands_that_the_command_topic_does_not_have_are_refused",),
    ),
    Mutant(
        "an-authority-is-no-reason-to-look-ahead",
        "an owner looks for orders to skip commands only if Postgres or the results topic says that there are any",
        (Edit(ACQUIRE + "acquire", "        or acquired.authority.key is not None\n", ""),),
        tests=(SKIPS + _LOST_REQUEST,),
    ),
    Mutant(
        "an-order-that-came-too-late-teaches-nothing",
        "an owner that met an order too late does not look for orders in its next term",
        (Edit(OWNER + "_run_term", "replace(self._limits, look_ahead=True)", "self._limits"),),
        tests=(SKIPS + _LOST_REQUEST,),
    ),
    Mutant(
        "results-end-checked-after-the-fence",
        "the end of the results topic is only looked at once a fence record was appended",
        (Edit(ACQUIRE + "_check_results", "if acquired.results_offset > end:", "if False:"),),
    ),
    Mutant(
        "results-topic-not-recognised",
        "the last result below F is not looked at",
        (Edit(ACQUIRE + "_read_tail", "tail.check_position()", "pass"),),
        tests=(
            REPLACED + "test_a_recreated_results_topic_is_refused_although_it_is_longer_than_the_former_one",
        ),
    ),
    Mutant(
        "no-second-look",
        "an owner that was frozen does not look whether the command topic is still the same",
        (
            Edit(
                TERM + "Term.run",
                "frozen = Moment.of(self._clock).since(looked_at) > self._limits.look_again_after",
                "frozen = False",
            ),
        ),
        tests=(
            REPLACED + "test_a_log_that_was_replaced_while_its_owner_was_frozen_is_noticed_when_it_wakes_up",
        ),
    ),
    Mutant(
        "disturbances-passed-over",
        "an owner does not look at the command topic after what disturbed its fetch",
        (Edit(TERM + "Term.run", "if frozen or self._log.disturbances != disturbances:", "if frozen:"),),
        tests=(REPLACED + "test_a_log_that_was_replaced_in_one_step_is_noticed_by_a_disturbed_fetch",),
    ),
    Mutant(
        "added-partitions-passed-over",
        "an owner that looks at the command topic again does not count its partitions",
        (Edit(TERM + "Term._look_again", "if partitions != self._acquired.partitions:", "if False:"),),
        tests=(REPLACED + "test_partitions_that_were_added_are_noticed_by_what_disturbed_the_fetch",),
    ),
    Mutant(
        "passed-over-offsets-unchecked",
        "an owner that was frozen does not look whether offsets that were empty hold records now",
        (Edit(TERM + "Term._look_again", "await self._check_skipped(records)", "pass"),),
        tests=(
            REPLACED
            + "test_records_that_took_the_place_of_passed_over_ones_while_an_owner_was_frozen_are_not_skipped",
        ),
    ),
    # Memory.
    Mutant(
        "cache-kept",
        "sessions stay in memory after a failure",
        (
            Edit(
                TERM + "Term.run",
                "self._anchor = acquired.anchor\n",
                "self._anchor = acquired.anchor\n"
                "    self._folder._cache = self._observer.__dict__.setdefault('kept', self._folder._cache)\n",
            ),
        ),
    ),
    Mutant(
        "reads-without-the-fence",
        "an owner reads sessions and data also where the partition has moved on",
        (Edit(DATABASE + "SimulatedStore._tables", "if held is not None and", "if False and"),),
        tests=(FOUND + "test_what_an_heir_did_and_postgres_lost_is_not_taken_over_by_the_former_owner",),
    ),
    Mutant(
        "empty-session-taken-for-absent",
        "a loaded session without checkpoints is made anew",
        (Edit(FOLDER + "_load", "if found is None", "if not found"),),
    ),
    Mutant(
        "records-left-over-are-lost",
        "what a batch has no room for is not kept for the next one",
        (
            Edit(
                "waypost_worker.partition.batching:BatchSplitter.batch",
                "self._left = piece[size:]",
                "self._left = []",
            ),
        ),
    ),
    # Owners that fail by a bug.
    Mutant(
        "bug-ends-the-owner",
        "an error that no port promises ends the owner, and not only its term",
        (
            Edit(
                OWNER + "_end_of_term",
                "except Exception as error:\n        return UnexpectedError(error)",
                "except Exception:\n        raise",
            ),
        ),
        tests=(FAILING + "test_a_bug_anywhere_ends_the_term_is_reported_and_the_owner_acquires_again",),
    ),
    Mutant(
        "canceled-owner-goes-on",
        "an owner that is canceled takes it for an error like any other",
        (Edit(OWNER + "_end_of_term", "if task is None or task.cancelling():", "if task is None:"),),
        tests=(FAILING + "test_an_owner_that_is_canceled_ends",),
    ),
    Mutant(
        "failing-batch-never-smaller",
        "the batch that fails again and again is not made smaller",
        (Edit(SEARCH + "failed", "self._most = max(1, suspects.count // 2)", "self._most = None"),),
        tests=(FAILING + "test_a_new_owner_without_the_bug_continues",),
    ),
    Mutant(
        "first-suspect-blamed",
        "the first command of a failing batch is taken for the one that fails",
        (Edit(SEARCH + "failed", "suspects.first if suspects.count == 1 else None", "suspects.first"),),
    ),
    Mutant(
        "blamed-at-the-first-failure",
        "an error that happened once is taken for one that happens each time",
        (Edit(SEARCH + "failed", "if self.terms < self._patience:", "if False:"),),
        tests=(
            "tests/unit/test_failure.py::test_a_batch_that_fails_twice_and_then_does_not_is_no_reason_to_search",
        ),
    ),
    Mutant(
        "slow-batch-never-smaller",
        "a batch that the store can't finish in time is tried as it is, again and again",
        (Edit("waypost_worker.partition.failure:_Growth.halve", "max(1, count // 2)", "count"),),
        tests=("tests/unit/test_failure.py::test_a_batch_that_was_too_slow_is_halved_immediately",),
    ),
    Mutant(
        "slow-batch-never-larger",
        "batches stay small once one of them was too slow",
        (
            Edit(
                "waypost_worker.partition.failure:_Growth.applied",
                "grown = 2 * self.most",
                "grown = self.most",
            ),
        ),
        tests=("tests/unit/test_failure.py::test_the_limit_grows_after_full_batches_and_is_gone_at_the_end",),
    ),
    Mutant(
        "slow-command-tried-forever",
        "a command that the store can't finish in time, even alone, is never named",
        (Edit(SEARCH + "timed_out", "if self.slow_terms >= self._patience", "if False"),),
        tests=(
            "tests/unit/test_failure.py::"
            "test_a_command_that_is_too_slow_alone_is_named_at_the_third_time_in_a_row",
        ),
    ),
    Mutant(
        "commands-blamed-for-the-store",
        "commands are suspected for an error of the store",
        (Edit(TERM + "_blaming_nobody", "raise UnexpectedError(error) from error", "raise"),),
        tests=(FAILING + "test_a_bug_in_the_store_casts_no_suspicion_on_commands",),
    ),
    Mutant(
        "applied-commands-suspected",
        "commands that were applied already are suspected as well",
        (
            Edit(
                TERM + "Term._suspects",
                "if record.offset >= position]",
                "]",
            ),
        ),
        tests=(FAILING + "test_batches_of_one_fetch_are_distinguished",),
    ),
    Mutant(
        "failing-batch-kept",
        "what a failed term held is kept until the next one begins",
        (
            Edit(
                OWNER + "_end_of_term",
                "self._left_at, self._term = self.progress, None",
                "self._left_at = self.progress",
            ),
            Edit(
                OWNER + "_run_term",
                "why = await self._end_of_term()",
                "self.why = why = await self._end_of_term()",
            ),
        ),
        tests=(FAILING + "test_a_failed_batch_is_not_kept_in_memory_while_its_owner_waits",),
    ),
    Mutant(
        "failing-owner-ready",
        "a partition counts as owned as soon as its failing owner has acquired it again",
        (
            Edit(
                "waypost_worker.telemetry.health:Health._partitions",
                "(set(self._progress) - set(self._failing))",
                "set(self._progress)",
            ),
        ),
        tests=(
            "tests/unit/test_health.py::test_a_partition_whose_owner_fails_is_not_ready_until_it_makes_progress",
        ),
    ),
    # Lag.
    Mutant(
        "markers-count-as-lag",
        "what a reader never sees at the end of a partition counts as lag",
        (
            Edit(
                TERM + "Term.run",
                "if not records:\n            self.progress = self._log.progress\n",
                "if not records:\n",
            ),
        ),
    ),
    Mutant(
        "what-does-not-fit-into-memory-is-lost",
        "commands that a batch has no memory for are not kept for the next one",
        (Edit(FOLDER + "fold", "pieces.put_back(rest)", "pass"),),
        tests=("tests/unit/test_batch_folder.py::test_where_batches_end_changes_no_result",),
    ),
    # The rest of a term.
    Mutant(
        "no-watch-over-the-consumer",
        "a consumer that gives nothing any more is never started anew",
        (
            Edit(
                TERM + "Term.run",
                "if self._clock.boottime() - moved_at > self._limits.stuck_after:",
                "if False:",
            ),
            NO_RENEWAL,
        ),
    ),
    Mutant(
        "kafka-before-postgres",
        "acquiring fences Kafka first and Postgres second",
        (
            Edit(
                ACQUIRE + "acquire",
                "    with proof.renewed():\n        acquired = await store.acquire(partitions)\n",
                "    fence = await results.claim()\n"
                "    tail_end = await results.append([encoder.acquired(0, 0, fence)]) + 1\n"
                "    with proof.renewed():\n        acquired = await store.acquire(partitions)\n",
            ),
            Edit(
                ACQUIRE + "acquire",
                "    fence = await results.claim()\n"
                "    proof.check()\n"
                "    record = encoder.acquired(acquired.epoch, acquired.next_offset, fence)\n"
                "    asked_at = clock.walltime()\n"
                "    with proof.fencing():\n"
                "        tail_end = await results.append([record]) + 1\n"
                "    clock_ahead = await _check_clock(log, results, clock, asked_at)\n\n",
                "    record = encoder.acquired(acquired.epoch, acquired.next_offset, fence)\n"
                "    clock_ahead = None\n\n",
            ),
        ),
    ),
)
