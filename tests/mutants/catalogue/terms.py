"""More mutants of the protocol: positions, logs that change underneath, memory, the rest of a term."""

from tests.mutants.catalogue.places import ACQUIRE, DATABASE, FOLDER, FOUND, NO_RENEWAL, OWNERSHIP, TAIL, TERM
from tests.mutants.mutant import Edit, Mutant

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
        "missing-result-not-noticed",
        "a command below R that has no result in the topic is passed over",
        (
            Edit(
                TAIL + "EmittedTail.compare",
                "if offset <= self._emitted:",
                "if offset <= self._emitted or offset not in self._offsets:",
            ),
        ),
        tests=(FOUND + "test_a_result_that_is_missing_in_the_middle_is_refused_when_the_log_is_replayed",),
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
        harmless="reading the anchored record, and fetching from the position, are refused by the log itself",
    ),
    Mutant(
        "results-behind-the-commands-accepted",
        "results of commands that the command topic does not have are accepted",
        (Edit(ACQUIRE + "acquire", "if tail.highest >= claim.next_offset:", "if False:"),),
        tests=(FOUND + "test_results_of_commands_that_the_command_topic_does_not_have_are_refused",),
    ),
    Mutant(
        "results-end-checked-after-the-fence",
        "the end of the results topic is only looked at once a fence record was appended",
        (
            Edit(
                ACQUIRE + "_check_results",
                "_check_results_end(claim, end)",
                "pass",
            ),
        ),
    ),
    Mutant(
        "results-topic-not-recognised",
        "the last result below F is not looked at",
        (Edit(ACQUIRE + "_read_tail", "tail.check_position()", "pass"),),
        tests=(
            FOUND + "test_a_recreated_results_topic_is_refused_although_it_is_longer_than_the_former_one",
        ),
    ),
    Mutant(
        "no-second-look",
        "an owner that was frozen does not look whether the command topic is still the same",
        (
            Edit(
                TERM + "Term.run",
                "if self._clock.boottime() - looked_at > self._limits.look_again_after:",
                "if False:",
            ),
        ),
    ),
    Mutant(
        "passed-over-offsets-unchecked",
        "an owner that was frozen does not look whether offsets that were empty hold records now",
        (Edit(TERM + "Term.run", "await self._check_skipped(records)", "pass"),),
        tests=(
            FOUND
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
                "    with proof.renewed():\n        claim = await store.acquire(partitions)\n",
                "    fence = await results.claim()\n"
                "    tail_end = await results.append([encoder.acquired(0, 0, fence)]) + 1\n"
                "    with proof.renewed():\n        claim = await store.acquire(partitions)\n",
            ),
            Edit(
                ACQUIRE + "acquire",
                "    fence = await results.claim()\n"
                "    proof.check()\n"
                "    record = encoder.acquired(claim.epoch, claim.next_offset, fence)\n"
                "    tail_end = await results.append([record]) + 1\n\n",
                "    record = encoder.acquired(claim.epoch, claim.next_offset, fence)\n\n",
            ),
        ),
    ),
)
