"""Positions that mean "done with": a mark counts in the term in which its record was read."""

from aiokafka import TopicPartition

from waypost.subscriber.consumer import ResultConsumer, Start
from waypost.subscriber.watchdog import Watch

PARTITION = TopicPartition("results", 0)


async def test_a_mark_of_an_earlier_term_moves_nothing() -> None:
    """The partition may be another member's by now, or be read again from its committed position."""
    consuming = ResultConsumer(
        "results", "group", Start(False, None), {"bootstrap_servers": "127.0.0.1:1"}, Watch(30, None)
    )
    await consuming.give_up()
    term = consuming.term
    consuming.mark(term, PARTITION, 41)
    assert consuming._done == {PARTITION: 42}
    await consuming.give_up()
    consuming.mark(term, PARTITION, 50)
    assert consuming._done == {}
    consuming.mark(consuming.term, PARTITION, 7)
    assert consuming._done == {PARTITION: 8}
