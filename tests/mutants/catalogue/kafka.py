"""Mutants of the ports on Kafka, for conformance and integration tests to catch."""

from tests.mutants.mutant import Edit, Mutant

RESULTS = "tests/conformance/test_results_log.py::"
COMMANDS = "tests/conformance/test_command_log.py::"
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


KAFKA: tuple[Mutant, ...] = (
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
        tests=_in(RESULTS, "test_after_a_canceled_append_nothing_more_is_appended"),
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
        tests=_in(TOGETHER, "test_a_partition_that_moved_gets_no_records_from_its_former_position"),
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
            tests=_in(APPENDS, "test_nothing_is_sent_after_its_time_even_by_a_loop_that_was_frozen"),
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
