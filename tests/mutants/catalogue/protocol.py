"""Mutants of the protocol: every guard and every order taken away, one at a time. The simulation hunts them."""

from tests.mutants.mutant import Edit, Mutant

ACQUIRE = "waypost_worker.partition.acquire:"
EMISSION = "waypost_worker.partition.emission:"
OWNER = "waypost_worker.partition.owner:"
FOLDER = "waypost_worker.partition.fold:Folder."
TAIL = "waypost_worker.partition.tail:"
DATABASE = "tests.simulation.database:"
PRODUCERS = "tests.simulation.producers:"
FOUND = "tests/simulation/test_found.py::"

_NO_WAIT = Edit(ACQUIRE + "acquire", "await sleep(proof_valid)\n", "pass\n")
_NO_PROOF = Edit(ACQUIRE + "Proof.check", "if age > self._valid:", "if False:")
_NO_RENEWAL = Edit(
    OWNER + "_Term.run", "while self._clock.boottime() - began <= self._limits.renew_after:", "while True:"
)
_CAS_WITHOUT_EPOCH = Edit(
    DATABASE + "SimulatedStore._commit",
    "tables = self._database.owned(self._partition, commit.epoch)",
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
                "await _check_complete(log, claim.next_offset, tail.highest, owed)",
                "pass",
            ),
        ),
        tests=("tests/simulation/test_simulation.py::test_a_seed_that_found_something_stays_good[300103]",),
    ),
    # The compare-and-set in Postgres.
    Mutant("cas-without-epoch", "the compare-and-set looks at the offset only", (_CAS_WITHOUT_EPOCH,)),
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
                "self._database.owned(self._partition, epoch)\n    tables = self._tables(held)",
                "tables = self._tables(None)",
            ),
        ),
    ),
    Mutant(
        "position-of-a-twin",
        "an owner whose epoch came again after a failover saves its results position over that of its twin",
        (Edit(DATABASE + "SimulatedStore._save_position", "self._tables(held)", "self._tables(None)"),),
        tests=(FOUND + "test_a_results_position_is_not_saved_over_that_of_an_owner_with_the_same_epoch",),
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
                "    tail_end = await results.append([record]) + 1\n\n",
                "    tail_end = (await results.bounds())[1]\n\n",
            ),
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
                "results_start, tail_end)\n    others",
                "results_start, old_end)\n    others",
            ),
        ),
    ),
    Mutant(
        "tail-not-read",
        "what was emitted is taken from the stored position alone",
        (Edit(ACQUIRE + "_read_tail", "tail.take(records, claim.next_offset)", "pass"),),
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
        (Edit(ACQUIRE + "acquire", "(tail.producer_ids | {claim.producer_id})", "{claim.producer_id}"),),
        tests=(FOUND + "test_an_owner_that_wakes_up_after_postgres_forgot_its_producer_id_doubles_nothing",),
    ),
    Mutant(
        "new-producer-id-stored-at-once",
        "the new producer id is stored before the old one is waited out",
        (
            Edit(
                ACQUIRE + "acquire",
                "    proof.check()\n    record =",
                "    await store.record_claim(claim.epoch, fence)\n    proof.check()\n    record =",
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
                "tail_end = await results.append([record]) + 1\n        tail =",
                "tail_end = (await results.bounds())[1]\n        tail =",
            ),
        ),
        tests=(FOUND + "test_an_end_that_a_former_leader_tells_is_not_taken_for_that_of_the_results_topic",),
    ),
    Mutant("no-proof", "an owner that was frozen appends on what it knew before", (_NO_PROOF,)),
    Mutant(
        "proof-from-the-answer",
        "the proof of ownership counts from when the answer was read, not from when it was asked for",
        (
            Edit(
                ACQUIRE + "Proof.renewed",
                "self._at = asked_at",
                "self._at = max(asked_at, self._clock.boottime())",
            ),
        ),
    ),
    Mutant("no-renewal", "a term never ends by itself", (_NO_RENEWAL,)),
    Mutant(
        "no-renewal-no-proof",
        "a term never ends by itself, and a frozen owner trusts what it knew",
        (_NO_RENEWAL, _NO_PROOF),
    ),
    # Emission.
    Mutant(
        "emission-before-commit",
        "results are emitted while the batch is being committed",
        (
            Edit(
                OWNER + "_Term._apply",
                "with acquired.proof.renewed():",
                "emission.add(AppliedBatch(decoded, made, results, changes.rejected, 0, 0))\n"
                "    results = []\n"
                "    with acquired.proof.renewed():",
            ),
        ),
    ),
    Mutant(
        "emission-not-awaited",
        "whether results were appended is never looked at",
        (
            Edit(EMISSION + "Emission.check", "self._task.result()", "pass"),
            Edit(EMISSION + "Emission.done", "await self._task\n", "await asyncio.wait({self._task})\n"),
        ),
    ),
    Mutant(
        "emission-out-of-order",
        "batches that waited for an append go out newest first",
        (
            Edit(
                EMISSION + "Emission._append_all",
                "for batch in batches for one in batch.results",
                "for batch in reversed(batches) for one in batch.results",
            ),
        ),
    ),
    Mutant(
        "emission-ends-after-one-append",
        "what was committed while an append was under way is left lying",
        (Edit(EMISSION + "Emission._append_all", "while self._waiting:", "if self._waiting:"),),
        tests=("tests/unit/test_emission.py",),
    ),
    Mutant(
        "emission-without-bound",
        "owners commit on however much waits to be emitted",
        (Edit(EMISSION + "Emission.room", "while self._full() and", "while False and"),),
        tests=("tests/unit/test_emission.py",),
    ),
    Mutant(
        "pieces-of-any-size",
        "all that waits is appended at once, whatever the topic takes",
        (Edit(ACQUIRE + "_pieces", "if size + weight > EMIT_BYTES and index > first:", "if False:"),),
    ),
    Mutant(
        "base-offset-unchecked",
        "results may land at any offset",
        (Edit(ACQUIRE + "emit", "if base != position.results_offset:", "if False:"),),
    ),
    Mutant(
        "piece-counted-before-it-is-appended",
        "the results position moves on before Kafka has answered",
        (
            Edit(
                ACQUIRE + "emit",
                "        base = await",
                "        position.emitted = piece[-1][0]\n        base = await",
            ),
        ),
    ),
    # The outbox.
    Mutant(
        "outbox-dropped-early",
        "a commit confirms the results of its own batch",
        (Edit(OWNER + "_Term._apply", "emitted=emitted,", "emitted=last.offset,"),),
    ),
    Mutant(
        "outbox-empty",
        "nothing is kept of the results that are to be emitted",
        (Edit(OWNER + "_Term._apply", "outbox.pack(items)", "outbox.pack([])"),),
    ),
    Mutant(
        "outbox-in-a-transaction-of-its-own",
        "the outbox entry is written after the batch",
        (
            Edit(
                DATABASE + "SimulatedStore.commit",
                "await self._call(what, partial(self._commit, commit, _frozen(commit)))",
                "empty = replace(commit, outbox=commit.outbox._replace(payload=b'[]'))\n"
                "    await self._call(what, partial(self._commit, empty, _frozen(commit)))\n"
                "    def write() -> None:\n"
                "        tables = self._database.owned(self._partition, commit.epoch).copy()\n"
                "        tables.outbox[commit.outbox.first_offset] = commit.outbox\n"
                "        self._database.put(self._partition, tables)\n"
                "    await self._call('outbox', write)",
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
    # The results position (E, F).
    Mutant(
        "position-without-its-command",
        "F is saved without its E",
        (
            Edit(
                ACQUIRE + "Position.to_store",
                "return self.emitted, self.results_offset",
                "return self.found[0], self.results_offset",
            ),
        ),
    ),
    Mutant(
        "position-moves-during-replay",
        "the results position moves on while results are only compared",
        (Edit(ACQUIRE + "Position.to_store", "if next_offset <= self.suppressed_up_to:", "if False:"),),
    ),
    Mutant(
        "nothing-suppressed",
        "after Postgres lost commits, results that are in the topic are emitted again",
        (Edit(ACQUIRE + "acquire", "suppressed_up_to=tail.highest", "suppressed_up_to=-1"),),
    ),
    Mutant(
        "nothing-compared",
        "replayed results are not held against the topic",
        (Edit(OWNER + "_Term._compare", "self._acquired.tail.compare(offset, record)", "pass"),),
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
                OWNER + "_Term.run",
                "if self._clock.boottime() - looked_at > self._limits.look_again_after:",
                "if False:",
            ),
        ),
    ),
    Mutant(
        "passed-over-offsets-unchecked",
        "an owner that was frozen does not look whether offsets that were empty hold records now",
        (Edit(OWNER + "_Term.run", "await self._check_skipped(records)", "pass"),),
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
                OWNER + "_Term.run",
                "self._anchor = acquired.anchor\n",
                "self._anchor = acquired.anchor\n"
                "    self._folder._cache = self._owner.__dict__.setdefault('kept', self._folder._cache)\n",
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
        (Edit(FOLDER + "fold", "if found is None", "if not found"),),
    ),
    # The rest of a term.
    Mutant(
        "no-watch-over-the-consumer",
        "a consumer that gives nothing any more is never started anew",
        (
            Edit(
                OWNER + "_Term.run",
                "if self._clock.boottime() - moved_at > self._limits.stuck_after:",
                "if False:",
            ),
            _NO_RENEWAL,
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
