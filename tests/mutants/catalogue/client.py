"""Mutants of the publisher, its spool and the subscriber. The simulation hunts those of what was accepted and not
acknowledged; the others have tests of their own.
"""

from tests.mutants.mutant import Edit, Mutant

BUFFER = "waypost.publisher.buffer:Buffer."
SENDER = "waypost.publisher.sender:Sender."
LANE = "waypost.publisher.lane:Lane."
SPOOL = "waypost.publisher.spool.buffer:SpooledBuffer."
CONSUMING = "waypost.subscriber.consumer:ResultConsumer."
SUBSCRIBER_TESTS = "tests/integration/test_subscriber.py::"
SPOOL_BUFFER_TESTS = "tests/unit/test_publisher_spool_buffer.py"

CLIENT: tuple[Mutant, ...] = (
    Mutant(
        "failed-removal-forgotten",
        "what could not be removed from the spool is not tried again",
        (Edit("waypost.publisher.spool.spooler:Spooler._remove", "self._buffer.put_off(found)", "pass"),),
        tests=(
            "tests/unit/test_publisher_spool.py::"
            "test_what_can_not_be_removed_from_the_disk_is_removed_once_it_can",
        ),
    ),
    Mutant(
        "acknowledged-written-after-all",
        "what was acknowledged while it waited to be saved is written to the spool",
        (Edit(SPOOL + "save", "if each.gone or each.home is not None:", "if each.home is not None:"),),
        tests=(SPOOL_BUFFER_TESTS + "::test_what_was_acknowledged_before_it_is_written_is_not_written",),
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
        "spilled-back-in-reverse",
        "commands that could not be written to the spool come back in the wrong order",
        (Edit(SPOOL + "spilled", "extendleft(reversed(self._spilling))", "extendleft(self._spilling)"),),
        tests=(SPOOL_BUFFER_TESTS,),
    ),
    Mutant(
        "arrivals-overtake-the-spool",
        "what comes now is sent before what is stored",
        (Edit(SPOOL + "_routable", "if not self._arrivals or self.stored or", "if not self._arrivals or"),),
        tests=(SPOOL_BUFFER_TESTS,),
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
        "a-subscriber-decodes-as-aiokafka-does",
        "a batch that nobody can read in the results topic stops a subscriber",
        (
            Edit(
                "waypost.subscriber.consumer:ResultConsumer._connect",
                "decode_bounded(self._consumer, partial(self._passed, self._consumer))",
                "pass",
            ),
        ),
        tests=(
            "tests/integration/test_bounded_fetch.py::test_subscribers_read_what_lies_between_hostile_batches",
        ),
    ),
    Mutant(
        "a-waiter-decodes-as-aiokafka-does",
        "a batch that nobody can read in the results topic stops the wait for a result",
        (Edit("waypost.publisher.waiter:ResultWaiter._connected", "decode_bounded(consumer)", "pass"),),
        tests=(
            "tests/integration/test_bounded_fetch.py::test_publishers_find_results_behind_hostile_batches",
        ),
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
                "waypost.kafka.bounded_fetch:_decoded",
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
