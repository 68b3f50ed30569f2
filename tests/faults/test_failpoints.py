"""A worker dies, or freezes for long enough to be fenced, between every two steps of acquire, batch and release.

Breaks: worker A is killed between commit and append, so that its successor finds an unfinished outbox. Worker B
takes over and is caught at the named point: SIGKILL, or SIGSTOP until worker C owns its partitions. A frozen B
wakes up beside C.
Must hold: C goes on within 30 s; nothing is lost, doubled or out of order; B, awake again, harms nothing and
drains cleanly.
"""

import signal

import pytest
from tests.faults.points import POINTS, RELEASE
from tests.faults.scene import Scene

# A selection for the default run: after a group commit, behind a fence, and in the middle of a hand-over.
SHORT = {
    ("kill", "acquire-5-reemitted"),
    ("kill", "batch-4-group-committed"),
    ("stop", "batch-5-before-append"),
}
CASES = [
    pytest.param(how, point, id=f"{how}-{point}", marks=() if (how, point) in SHORT else pytest.mark.long)
    for point in POINTS
    for how in ("kill", "stop")
]


@pytest.mark.parametrize(("how", "point"), CASES)
async def test_caught_between_two_steps(shared: Scene, how: str, point: str) -> None:
    first = await shared.worker("--point", "batch-4-committed", "--hits", str(shared.random.randrange(1, 9)))
    await shared.until(lambda: not first.alive)
    # Time goes on while it is frozen, and a drain that has used up its own rightly ends with 1.
    victim = await shared.worker("--point", point, "--how", how, drain_timeout="600")
    if point in RELEASE:
        # Its own term must have begun, or it is told to drain before it holds anything: results come late.
        await shared.until(lambda: victim.says("partition_acquired") >= shared.partitions)
        await shared.answered(20)
        victim.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
    await shared.until(lambda: victim.caught)
    heir = await shared.worker()
    await shared.healed()
    assert heir.says("partition_acquired") >= shared.partitions
    if how == "stop":
        victim.thaw()
        await shared.healed()
    if how == "stop" and point in RELEASE:
        assert await victim.ended() == 0, "it was told to drain before it froze"
    await shared.judge()
