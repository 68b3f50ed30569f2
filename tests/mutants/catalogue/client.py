"""Mutants of the publisher, its spool and the subscriber. The simulation hunts those of what was accepted and not
acknowledged; the others have tests of their own.
"""

from tests.mutants.mutant import Edit, Mutant

BUFFER = "waypost.publisher.buffer:Buffer."
SENDER = "waypost.publisher.sender:Sender."
LANE = "waypost.publisher.lane:Lane."
SPOOL = "waypost.publisher.spool."
CONSUMING = "waypost.subscriber.consumer:ResultConsumer."
SUBSCRIBER_TESTS = "tests/integration/test_subscriber.py::"
SPOOL_TESTS = "tests/unit/test_publisher_spool.py::"
SPOOL_FILE_TESTS = "tests/unit/test_publisher_spool_files.py::"

CLIENT: tuple[Mutant, ...] = (
    Mutant(
        "failed-watermark-forgotten",
        "a watermark that could not be written is not written later",
        (Edit(SPOOL + "spooler:Spooler.settle", "self._marks[log_, partitions, partition] = row", "pass"),),
        tests=(SPOOL_TESTS + "test_a_watermark_that_cannot_be_written_holds_up_its_partition_until_it_can",),
    ),
    Mutant(
        "one-watermark-for-all-partitions",
        "what one partition acknowledged counts for all",
        (
            Edit(
                SPOOL + "watermark:Watermark.covers",
                "self._rows.get((partitions, its), 0)",
                "max(self._rows.values(), default=0)",
            ),
        ),
        tests=(SPOOL_TESTS + "test_a_partition_that_waits_does_not_make_others_repeat_what_they_sent",),
    ),
    Mutant(
        "arrivals-overtake-the-spool",
        "what comes now is sent before what is on the disk alone",
        (
            Edit(
                BUFFER + "_store",
                "held = not self._beyond and self._fits(count, size)",
                "held = self._fits(count, size)",
            ),
        ),
        tests=(SPOOL_TESTS + "test_what_comes_now_waits_behind_what_is_on_the_disk_alone",),
    ),
    Mutant(
        "read-on-as-a-dead-publisher",
        "what does not fit into memory is read back as if a dead publisher had written it",
        (
            Edit(
                SPOOL + "spooler:Spooler.write",
                "while len(self._readers) > 1:",
                "while False:",
            ),
        ),
        tests=(SPOOL_TESTS + "test_what_overflows_behind_what_a_dead_publisher_left_comes_back_in_order",),
    ),
    Mutant(
        "failed-write-left-behind",
        "what a full disk took of a command, and an interrupted call, stay in the spool",
        (Edit(SPOOL + "log:Segment.write", "os.ftruncate(self.fd, self.size)", "pass"),),
        tests=(
            SPOOL_TESTS + "test_a_full_disk_is_an_error_that_says_what_was_kept_and_room_helps",
            SPOOL_TESTS + "test_an_interrupted_call_leaves_nothing_that_is_sent_later",
        ),
    ),
    Mutant(
        "dropped-comes-back",
        "what was given up for newer commands is sent by the next publisher",
        (Edit(BUFFER + "_drop_oldest", "self._spool.drop(queue[0])", "pass"),),
        tests=(SPOOL_TESTS + "test_dropping_the_oldest_makes_room_and_they_do_not_come_back",),
    ),
    Mutant(
        "record-of-what-was-dropped-goes-first",
        "a file that says what was given up is removed before the file with the commands",
        (
            Edit(
                SPOOL + "log:Log.tidy",
                "needed = segment.has_drops and segment is not self.segments[0]",
                "needed = False",
            ),
        ),
        tests=(SPOOL_FILE_TESTS + "test_what_says_that_a_command_was_given_up_stays_as_long_as_the_command",),
    ),
    Mutant(
        "half-a-call-accepted",
        "of a call with several commands, those are sent that were written before the process died",
        (Edit(SPOOL + "log:Log._count", "if call is not None:", "if False:"),),
        tests=(SPOOL_FILE_TESTS + "test_a_call_with_several_commands_is_accepted_whole_or_not_at_all",),
    ),
    Mutant(
        "damage-ends-a-file",
        "nothing is sent of what follows a damaged record",
        (
            Edit(
                SPOOL + "record:_first_frame",
                "at = data.find(_MAGIC, at + 1)",
                "at = -1",
            ),
        ),
        tests=(SPOOL_FILE_TESTS + "test_a_damaged_record_is_set_aside_and_stops_nothing",),
    ),
    Mutant(
        "unacknowledged-in-reverse",
        "what was in flight when a producer died goes back in the wrong order",
        (
            Edit(
                BUFFER + "give_all_back",
                "queue.extendleft(reversed(in_flight))",
                "queue.extendleft(in_flight)",
            ),
        ),
    ),
    Mutant(
        "unacknowledged-forgotten",
        "what was in flight when a producer died is not sent again",
        (Edit(BUFFER + "give_all_back", "queue.extendleft(reversed(in_flight))", "pass"),),
    ),
    Mutant(
        "two-batches-in-flight",
        "a batch of a partition is launched while another is on its way",
        (Edit(LANE + "ready", "self._filled > 0 and self._flight is None", "self._filled > 0"),),
    ),
    Mutant(
        "acknowledged-before-it-landed",
        "a batch counts as delivered once it was handed to the Kafka client",
        (
            Edit(
                LANE + "land",
                "if self._flight is None or not self._flight.done():\n        return None\n",
                "if self._flight is None:\n        return None\n    if not self._flight.done():\n"
                "        self._flight = None\n        return -1\n",
            ),
        ),
    ),
    Mutant(
        "refused-batch-dropped-whole",
        "of a batch that is too large all commands are given up, and one is reported",
        (
            Edit(
                SENDER + "_land",
                "if lane.in_flight > 1:\n            return error\n        (refused,) = self._take_out("
                "lane.partition, 1)",
                "refused, *_ = self._take_out(lane.partition, lane.in_flight)",
            ),
        ),
    ),
    Mutant(
        "producer-kept-after-a-refusal",
        "the producer whose batch was refused goes on, with a gap in its sequence",
        (
            Edit(
                SENDER + "_land",
                "self._tell_progress()\n        return _RefusedOne()",
                "self._tell_progress()\n        lane._flight, lane.in_flight = None, 0\n        return None",
            ),
        ),
        harmless="the gap makes the broker refuse the partition's next batch, and that error ends the producer as "
        "well; a partition that does not know the producer takes any sequence, and nothing else is in flight",
    ),
    Mutant(
        "event-done-before-it-is-handled",
        "an event counts as done with once it is handed out",
        (
            Edit(
                "waypost.subscriber.client:Subscriber.__aiter__",
                "if record.value is not None and self._filter.wants(record.headers):",
                "consuming.mark(term, partition, record.offset)\n"
                "                if record.value is not None and self._filter.wants(record.headers):",
            ),
        ),
        tests=(SUBSCRIBER_TESTS + "test_an_event_that_was_not_finished_comes_again",),
    ),
    Mutant(
        "unreadable-offsets-are-fetched-again",
        "a batch that nobody can read in the results topic stops subscribers and waiting publishers",
        (
            Edit(
                "waypost.kafka.topic_reader:TopicReader._keep",
                "if decoded.behind > reading.offset:",
                "if decoded.records:",
            ),
        ),
        tests=(
            "tests/integration/test_bounded_fetch.py::test_subscribers_read_what_lies_between_hostile_batches",
            "tests/integration/test_bounded_fetch.py::test_publishers_find_results_behind_hostile_batches",
        ),
    ),
    Mutant(
        "a-batch-that-a-broker-has-fails",
        "a publisher takes the answer to a repeated batch for a failure, and sends its commands once more",
        (
            Edit(
                "waypost.kafka.batch_producer:BatchProducer._problem",
                "if error in (NoError, DuplicateSequenceNumber):",
                "if error is NoError:",
            ),
        ),
        tests=("tests/unit/test_batch_producer.py",),
    ),
    Mutant(
        "a-member-misses-rebalances",
        "a member that hears of a rebalance does not join again",
        (
            Edit(
                "waypost.kafka.group_member:GroupMember._beat",
                "self._join_again()  # heartbeats continue until it does",
                "pass",
            ),
        ),
        tests=("tests/unit/test_group_member.py",),
    ),
    Mutant(
        "a-position-is-committed-without-its-generation",
        "a former member may move the position of partitions that went to others",
        (
            Edit(
                "waypost.kafka.group_member:GroupMember.commit",
                "self._generation,",
                "-1,",
            ),
        ),
        tests=("tests/unit/test_group_member.py",),
    ),
    Mutant(
        "unreadable-offsets-look-stuck",
        "a subscriber's consumer is replaced because nothing comes of offsets that nobody can read",
        (
            Edit(
                "waypost.subscriber.watchdog:FetchProgress.stuck",
                "max(self._positions[partition], self._passed.get(partition, 0))",
                "self._positions[partition]",
            ),
        ),
        tests=(
            "tests/integration/test_bounded_fetch.py"
            "::test_a_log_that_ends_with_what_nobody_can_read_makes_no_consumer_look_stuck",
        ),
    ),
    Mutant(
        "one-fetch-unpacks-without-limit",
        "a consumer unpacks all that one fetch brought",
        (
            Edit(
                "waypost.kafka.bounded_fetch:decode_fetched",
                "if len(records) >= _MOST_RECORDS or size >= _MOST_BYTES or now > end:",
                "if False:",
            ),
        ),
        tests=("tests/integration/test_bounded_fetch.py::test_what_one_fetch_gives_is_bounded",),
    ),
    Mutant(
        "marks-of-an-earlier-term",
        "what was read before a rebalance may move the position after it",
        (Edit(CONSUMING + "mark", "if term == self.term:", "if True:"),),
        tests=("tests/unit/test_result_consumer.py",),
    ),
    Mutant(
        "stuck-at-first-sight",
        "a consumer is taken for stuck although a record may just have come",
        (
            Edit(
                "waypost.subscriber.watchdog:FetchProgress.stuck",
                "if self._suspected.get(p) == self._positions[p]",
                "if True",
            ),
        ),
        tests=("tests/unit/test_watchdog.py",),
    ),
)
