"""Mutants of the ports on real servers, for conformance and integration tests to catch."""

from tests.mutants.mutant import Edit, Mutant

COMMIT = "sql:commit"
COMMITTER = "waypost_worker.postgres.group_commit:GroupCommitter."
STORE = "tests/conformance/test_store.py::"
RESULTS = "tests/conformance/test_results_log.py::"
COMMANDS = "tests/conformance/test_command_log.py::"
SWITCHED = "tests/integration/test_postgres_switched.py::"
SHARDS = "tests/integration/test_shards_guard.py::"
ACQUIRER = "waypost_worker.postgres.group_acquire:GroupAcquirer."
READER = "waypost_worker.kafka.partition_reader:PartitionReader."
FEED = "waypost_worker.kafka.fetch_rounds:Feed."
PLANNER = "waypost_worker.kafka.fetch_rounds:FetchPlanner."
FETCHES = "waypost_worker.kafka.shared_fetch:SharedFetch."
TOGETHER = "tests/unit/test_shared_fetch.py::"
PRODUCER = "waypost_worker.kafka.fenced_producer:FencedProducer."
BATCH = "waypost_worker.kafka.produce:OutgoingBatch."
GROUP = "waypost_worker.kafka.produce:ProduceGroup."
APPENDS = "tests/unit/test_fenced_producer.py::"


def _in(file: str, *tests: str) -> tuple[str, ...]:
    return tuple(file + test for test in tests)


SERVERS: tuple[Mutant, ...] = (
    Mutant(
        "sql-commit-without-epoch",
        "the compare-and-set in commit.sql looks at the offset only",
        (Edit(COMMIT, "and epoch = $3", "and $3::bigint is not null"),),
        tests=_in(STORE, "test_a_batch_of_an_older_epoch_changes_nothing"),
    ),
    Mutant(
        "sql-commit-without-offset",
        "the compare-and-set in commit.sql looks at the epoch only",
        (Edit(COMMIT, "and next_offset = $4", "and $4::bigint is not null"),),
        tests=_in(STORE, "test_a_batch_at_another_offset_changes_nothing"),
    ),
    *(
        Mutant(
            f"sql-{name}-without-producer".replace("_", "-"),
            f"{name}.sql does not look at the recorded producer",
            (
                Edit(
                    f"sql:{name}",
                    f"and {row}producer_id is not distinct from {first}",
                    f"and {first} is not distinct from {first}",
                ),
                Edit(
                    f"sql:{name}",
                    f"and {row}producer_epoch is not distinct from {second}",
                    f"and {second} is not distinct from {second}",
                ),
            ),
            tests=_in(STORE, "test_of_two_owners_with_one_epoch_only_one_records_its_producer"),
        )
        for name, row, first, second in (
            ("commit", "", "$62::bigint", "$63::integer"),
            ("save_position", "p.", "s.producer_id", "s.producer_epoch"),
            ("record_claim", "p.", "c.found_id", "c.found_epoch"),
        )
    ),
    Mutant(
        "sql-commit-of-rows-without-ownership",
        "checkpoints are written also where the compare-and-set failed",
        (Edit(COMMIT, "from owner\n        where (select", "where (select"),),
        tests=_in(STORE, "test_a_batch_of_an_older_epoch_changes_nothing"),
    ),
    Mutant(
        "sql-epoch-not-raised",
        "acquire.sql leaves the epoch as it is",
        (Edit("sql:acquire", "set epoch = p.epoch + 1", "set epoch = p.epoch"),),
        tests=_in(STORE, "test_every_claim_raises_the_epoch_of_its_partition_alone"),
    ),
    Mutant(
        "sql-partition-count-unchecked",
        "acquire.sql finds no other partition count",
        (
            Edit("sql:acquire", "(select min(o.partitions) from waypost.partitions o)", "null::integer"),
            Edit("sql:acquire", "(select max(o.partitions) from waypost.partitions o)", "null::integer"),
        ),
        tests=_in(STORE, "test_another_partition_count_is_refused_and_the_owner_stays"),
    ),
    Mutant(
        "sql-position-without-epoch",
        "save_position.sql lets any owner save a results position",
        (Edit("sql:save_position", "and p.epoch = s.epoch", "and s.epoch is not null"),),
        tests=_in(STORE, "test_only_the_owner_records_a_producer_or_saves_a_position"),
    ),
    Mutant(
        "sql-position-of-a-twin",
        "save_position.sql lets an owner whose epoch came again save over its twin",
        (
            Edit(
                "sql:save_position",
                "= coalesce(s.next_offset, p.next_offset)",
                "= p.next_offset + 0 * coalesce(s.next_offset, 0)",
            ),
        ),
        tests=_in(STORE, "test_an_owner_whose_epoch_came_again_saves_no_results_position"),
    ),
    Mutant(
        "sql-claim-without-epoch",
        "record_claim.sql lets any owner record its producer id",
        (Edit("sql:record_claim", "and p.epoch = c.epoch", "and c.epoch is not null"),),
        tests=_in(STORE, "test_only_the_owner_records_a_producer_or_saves_a_position"),
    ),
    Mutant(
        "sql-outbox-dropped-early",
        "commit.sql drops an outbox entry once its first result is confirmed",
        (Edit(COMMIT, "and o.last_offset <= $7", "and o.first_offset <= $7"),),
        tests=_in(STORE, "test_an_entry_of_which_only_the_last_result_is_missing_stays_whole"),
    ),
    Mutant(
        "sql-saved-position-drops-early",
        "save_position.sql drops an outbox entry once its first result is confirmed",
        (
            Edit(
                "sql:save_position",
                "and o.last_offset <= owner.emitted",
                "and o.first_offset <= owner.emitted",
            ),
        ),
        tests=_in(STORE, "test_a_saved_position_leaves_an_entry_of_which_the_last_result_is_missing"),
    ),
    Mutant(
        "sql-outbox-out-of-order",
        "the outbox is read in no particular order",
        (Edit("sql:read_outbox", "partition, first_offset\n", "partition, first_offset desc\n"),),
        tests=_in(STORE, "test_before_the_confirmation_every_entry_is_there_in_order"),
    ),
    Mutant(
        "sql-load-without-the-fence",
        "load.sql gives sessions to an owner that was overtaken",
        (Edit("sql:load", "where $3::bigint is null", "where true or $3::bigint is null"),),
        tests=_in(STORE, "test_an_owner_that_was_overtaken_reads_nothing"),
    ),
    Mutant(
        "sql-contents-without-the-fence",
        "contents.sql gives data to an owner that was overtaken",
        (Edit("sql:contents", "where $3::bigint is null", "where true or $3::bigint is null"),),
        tests=_in(STORE, "test_an_owner_that_was_overtaken_reads_nothing"),
    ),
    Mutant(
        "fence-in-postgres-not-noticed",
        "that a statement did nothing is taken for success",
        (
            Edit(ACQUIRER + "_update", "or overtaken(update[0])", "or (0, 1)"),
            Edit(COMMITTER + "_commit_one", "if place is None:", "if False:"),
        ),
        tests=_in(STORE, "test_a_batch_that_is_committed_again_counts_once"),
    ),
    Mutant(
        "producer-without-the-claimed-epoch",
        "results are appended without a producer id",
        (
            Edit(
                PRODUCER + "_batch",
                "*self._fence, self._sequence",
                "-1, -1, -1",
            ),
        ),
        tests=_in(RESULTS, "test_a_zombie_cannot_append_behind_the_fence_record"),
    ),
    Mutant(
        "producer-used-after-a-failure",
        "a producer whose append failed is used again",
        (Edit(PRODUCER + "append", "if not self._usable:", "if False:"),),
        tests=_in(RESULTS, "test_after_a_cancelled_append_nothing_more_is_appended"),
    ),
    Mutant(
        "sequence-wraps",
        "a producer is used until its sequence numbers wrap",
        (Edit(PRODUCER + "append", "if self._sequence + len(records) > LAST_SEQUENCE:", "if False:"),),
        tests=(
            "tests/integration/test_kafka_fenced.py::"
            "test_sequence_numbers_are_given_up_long_before_aiokafka_wraps_them",
        ),
    ),
    Mutant(
        "consumer-resets-itself",
        "a position that is not in the log is reset to the beginning",
        (
            Edit(
                READER + "_taken",
                "await self._refuse(self._buffer.position)",
                "await self.seek((await self.bounds())[0])\n        return []",
            ),
        ),
        tests=_in(COMMANDS, "test_a_position_that_retention_removed_is_refused_and_not_reset"),
    ),
    Mutant(
        "results-dated-by-workers",
        "results topics keep the time that workers tell",
        (
            Edit(
                "waypost_worker.kafka.topics:topic_settings",
                'topics.results: {\n            **common,\n            "message.timestamp.type": "LogAppendTime",',
                "topics.results: {\n            **common,",
            ),
        ),
        tests=("tests/integration/test_kafka_topics.py::test_topics_are_made_as_the_contract_says",),
    ),
    Mutant(
        "results-kept-too-briefly",
        "results may be kept for less than the fence must last",
        (
            Edit(
                "waypost_worker.kafka.topics:create_topics",
                "if FOR_EVER < results_retention_ms < LEAST_RESULTS_RETENTION_MS:",
                "if False:",
            ),
        ),
        tests=(
            "tests/integration/test_kafka_topics.py::test_results_are_kept_as_long_as_the_fence_must_last",
        ),
    ),
    Mutant(
        "update-forgets-other-settings",
        "updating a topic resets what an operator had set on it",
        (
            Edit(
                "waypost_worker.kafka.topics:_alter",
                "{**kept, **changes}",
                "{**changes}",
            ),
        ),
        tests=(
            "tests/integration/test_kafka_topics.py::"
            "test_topics_of_an_earlier_version_are_updated_and_keep_other_settings",
        ),
    ),
    Mutant(
        "topic-of-the-same-name-fetched",
        "a topic that was created again is fetched from, as if it were the former one",
        (Edit(FEED + "is_by_id", "return self.topic_id is not None and not self.is_named", "return False"),),
        tests=_in(COMMANDS, "test_a_topic_that_took_the_place_of_another_is_not_fetched_from"),
    ),
    Mutant(
        "topic-of-the-same-name-read",
        "an owner that looks at its log again looks at whatever topic has the name by then",
        (
            Edit(
                "waypost_worker.kafka.command_log:KafkaCommandLog.partitions",
                "await self._reader.topic_id()",
                "pass",
            ),
        ),
        tests=_in(
            COMMANDS, "test_a_topic_that_took_the_place_of_another_is_not_read_by_an_owner_of_the_former"
        ),
    ),
    Mutant(
        "cut-log-read-on",
        "a reader goes on although the broker says that the log was cut before its position",
        (Edit(FEED + "deliver", "if fetched.cut_at is not None:", "if False:"),),
        tests=(
            "tests/integration/test_partition_reader_cut.py::"
            "test_a_position_behind_the_end_of_its_leader_is_refused_as_cut",
        ),
    ),
    Mutant(
        "leader-epochs-go-back",
        "records of an earlier leader than those before them are taken",
        (Edit(FEED + "deliver", "if NO_EPOCH < last_epoch < self.last_epoch:", "if False:"),),
        tests=(
            "tests/unit/test_partition_reader.py::"
            "test_records_of_an_earlier_leader_than_those_before_them_are_refused",
        ),
    ),
    Mutant(
        "answer-for-a-former-position",
        "a partition takes records that were asked for before it moved",
        (
            Edit(
                "waypost_worker.kafka.fetch_rounds:Part.counts",
                "return self.feed.turn == self.turn",
                "return True",
            ),
        ),
        tests=_in(TOGETHER, "test_a_partition_that_moved_gets_nothing_of_its_former_position"),
    ),
    Mutant(
        "answer-of-another-partition",
        "a partition gets what a shared answer holds for another one",
        (Edit(FETCHES + "_run", "feed.partition.partition))", "0))"),),
        tests=_in(TOGETHER, "test_each_partition_gets_its_own_records"),
    ),
    Mutant(
        "late-partition-waits-for-the-long-poll",
        "a partition that is not in the request under way waits until that is answered",
        (Edit(PLANNER + "plan", "elif route.beside is None and route.main.is_long:", "elif False:"),),
        tests=_in(TOGETHER, "test_a_partition_that_comes_later_does_not_wait_for_the_request_under_way"),
    ),
    Mutant(
        "first-partitions-fill-the-answer",
        "a partition that got records is asked for first again",
        (Edit(PLANNER + "answered", "if feed in self._feeds:", "if False:"),),
        tests=_in(TOGETHER, "test_a_backlog_of_more_partitions_than_fit_into_an_answer_is_shared_out"),
    ),
    Mutant(
        "broken-connection-passed-over",
        "those whose fetch broke off go on as if nothing had happened",
        (Edit(FETCHES + "disturb", "feed.disturb()", "pass"),),
        tests=_in(TOGETHER, "test_a_broken_connection_is_counted_by_all_whose_fetch_was_in_it"),
    ),
    Mutant(
        "another-cluster-passed-over",
        "a client that started from the bootstrap servers again disturbs nobody",
        (Edit(FETCHES + "_run", "part.feed.seen_start > 0", "0"),),
        tests=_in(TOGETHER, "test_a_client_that_started_again_is_counted_by_everybody"),
    ),
    Mutant(
        "aborted-commands-read",
        "commands of aborted transactions are read",
        (
            Edit(
                "waypost_worker.kafka.command_log:KafkaCommandLog.__init__",
                "self._partition, _ISOLATION, is_live",
                'self._partition, "read_uncommitted", is_live',
            ),
        ),
        tests=_in(COMMANDS, "test_aborted_commands_are_never_seen"),
    ),
    Mutant(
        "outbox-read-before-the-lock",
        "an owner reads the outbox before it has the lock of its partition's row",
        (
            Edit(
                ACQUIRER + "_acquired",
                "found = await connection.fetch(",
                "early = await read_outbox.fetch(partitions)\n        found = await connection.fetch(",
            ),
            Edit(ACQUIRER + "_acquired", "in await read_outbox.fetch(list(rows)):", "in early:"),
        ),
        tests=(
            "tests/integration/test_postgres_store.py::"
            "test_what_an_older_owner_commits_while_its_heir_waits_for_the_row_is_in_the_heir_s_outbox",
        ),
    ),
    Mutant(
        "more-than-a-batch-begun",
        "of results that do not fit into one batch, those that do are appended",
        (Edit(PRODUCER + "_batch", "raise ValueError(f", "break\n            raise ValueError(f"),),
        tests=("tests/integration/test_kafka_fenced.py::test_what_does_not_fit_into_one_batch_is_not_begun",),
    ),
    Mutant(
        "duplicate-taken-for-an-append",
        "an offset that Kafka does not know any more is taken for one",
        (Edit(PRODUCER + "_offset", "if answer.offset < 0:", "if False:"),),
        tests=(
            "tests/integration/test_kafka_fenced.py::test_a_batch_that_kafka_has_but_has_forgotten_where_is_in_doubt",
        ),
    ),
    Mutant(
        "answers-by-order",
        "the answers to a Produce request are taken for those of its batches in order",
        (
            Edit(
                GROUP + "outcomes",
                "for partition, code, offset, time_ms, *_ in partitions",
                "for (partition, *_), (_, code, offset, time_ms, *_) in zip(sorted(partitions), partitions)",
            ),
        ),
        tests=_in(APPENDS, "test_appends_of_several_partitions_go_in_one_request_for_each_broker"),
    ),
    Mutant(
        "retry-with-a-new-sequence",
        "a batch that is sent again gets a new sequence number",
        (
            Edit(
                PRODUCER + "_attempt",
                "began = loop.time()",
                "began = loop.time()\n    self._sequence += 1\n"
                "    batch.data = batch.data[:53] + self._sequence.to_bytes(4, 'big') + batch.data[57:]",
            ),
        ),
        tests=_in(APPENDS, "test_after_what_passes_the_same_bytes_are_sent_again"),
    ),
    Mutant(
        "canceled-append-sent",
        "a batch is sent although its append was canceled while the connection opened",
        (Edit(BATCH + "may_be_sent", "self.wanted and ", ""),),
        tests=_in(APPENDS, "test_an_append_that_is_canceled_while_the_connection_opens_is_not_sent"),
    ),
    *(
        Mutant(
            f"append-sent-too-late-by-{clock}",
            f"a batch is sent however long ago its append began by {clock}",
            (Edit(BATCH + "may_be_sent", f" and {clock}() < self._until[{index}]", ""),),
            tests=_in(APPENDS, "test_nothing_is_sent_after_its_time_even_by_a_loop_that_stood_still"),
        )
        for index, clock in enumerate(("boottime", "walltime"))
    ),
    Mutant(
        "two-batches-of-a-partition-in-a-request",
        "a Produce request carries two batches of a partition",
        (Edit(GROUP + "build", " and batch.partition not in self._sent", ""),),
        tests=_in(APPENDS, "test_two_batches_of_a_partition_never_share_a_request"),
    ),
    Mutant(
        "requests-queue-up-at-the-broker",
        "a Produce request is sent behind one that nobody waits for any more",
        (
            Edit(
                "waypost_worker.kafka.group_append:GroupAppender._send",
                "if former is not None and not former.done():",
                "if False:",
            ),
        ),
        tests=_in(APPENDS, "test_a_request_that_nobody_waits_for_any_more_holds_the_next_one_back"),
    ),
    Mutant(
        "slow-replica-holds-up-all",
        "a Produce request waits for the slowest replica as long as an append may take",
        (
            Edit(
                "waypost_worker.kafka.group_append:hold_seconds",
                "min(_LONGEST_HOLD, connection.request_timeout / 4)",
                "connection.request_timeout",
            ),
        ),
        tests=_in(APPENDS, "test_a_partition_with_a_slow_replica_holds_up_others_once"),
    ),
    Mutant(
        "place-of-a-database-unchecked",
        "an owner acquires its partition in whatever shard it is given",
        (Edit(ACQUIRER + "_acquired", "_check(rows[one.partition], one)", "pass"),),
        tests=_in(SHARDS, "test_an_owner_refuses_a_database_that_is_another_shard"),
    ),
    Mutant(
        "same-database-twice",
        "a new set may name one database twice",
        (Edit("waypost_worker.postgres.shards:check_distinct", "if not free:", "if False:"),),
        tests=_in(SHARDS, "test_new_databases_that_are_one_are_found_whatever_their_names"),
    ),
    Mutant(
        "set-recorded-before-all-answer",
        "a new set is recorded as soon as one of its databases answers",
        (Edit("waypost_worker.postgres.shards:Shards._begin", "raise ConnectionError(_WAITS)", "return"),),
        tests=_in(SHARDS, "test_a_new_set_is_recorded_only_when_all_of_it_answers"),
    ),
    # What operators meet.
    Mutant(
        "pool-stays-with-a-former-primary",
        "connections are kept after a server said that it takes no writes",
        (
            Edit(
                "waypost_worker.postgres.errors:owner_errors",
                "if is_outdated(said):\n            await pool.expire_connections()",
                "if is_outdated(said):\n            pass",
            ),
        ),
        tests=_in(SWITCHED, "test_a_store_follows_after_one_refused_write"),
    ),
    Mutant(
        "read-only-server-counts-as-well",
        "a server that answers and can't be written passes the check",
        (
            Edit(
                "waypost_worker.postgres.shards:Shards.check",
                "newer=True, writable=True",
                "newer=True",
            ),
        ),
        tests=_in(
            SWITCHED,
            "test_a_check_finds_a_server_that_became_read_only_and_the_next_one_its_successor",
        ),
    ),
    Mutant(
        "old-time-limits-kept",
        "after a time limit was too short, the connections that have it are used again",
        (
            Edit(
                "waypost_worker.postgres.store:PostgresStore.acquire",
                "await self._pool.expire_connections()",
                "pass",
            ),
        ),
        tests=(
            "tests/integration/test_postgres_store.py::"
            "test_a_commit_that_takes_too_long_names_the_limit_and_works_once_it_is_raised",
        ),
    ),
    Mutant(
        "compacted-topics-are-taken",
        "a worker takes partitions of a topic that is compacted",
        (Edit("waypost_worker.kafka.topics:_check_topic", '"compact" in actual', "False"),),
        tests=("tests/integration/test_start_checks.py::test_any_compaction_is_unsafe",),
    ),
    Mutant(
        "last-header-wins",
        "of two different values of a header, the last one counts",
        (Edit("waypost.wire.envelope:_contradictory", "!= value:", "is None:"),),
        tests=(
            "tests/unit/test_foreign_bodies.py::"
            "test_a_header_that_contradicts_itself_is_refused_wherever_it_stands",
        ),
    ),
)
