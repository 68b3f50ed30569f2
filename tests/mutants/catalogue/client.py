"""Mutants of the publisher: what was accepted and not acknowledged."""

from tests.mutants.mutant import Edit, Mutant

BUFFER = "waypost.buffer:Buffer."
_BUFFER_TESTS = ("tests/unit/test_publisher_buffer.py",)

CLIENT: tuple[Mutant, ...] = (
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
        tests=_BUFFER_TESTS,
    ),
    Mutant(
        "unacknowledged-forgotten",
        "what was in flight when a producer died is not sent again",
        (Edit(BUFFER + "give_all_back", "queue.extendleft(reversed(in_flight))", "pass"),),
        tests=_BUFFER_TESTS,
    ),
)
