"""An agent that will die: publishes numbered creates and prints, unbuffered, what it knows of each.

``python -m tests.tools.crash.agent JOB``, JOB in JSON: bootstrap, prefix, first (number), session (prefix of their
names), sessions (how many), burst (calls before a pause), threads (0: an event loop), goal (after this many it closes
and reports what is left), death, and options of the publisher. Each line is a letter and a number: ``a``: its call has
returned; ``d``: Kafka has it; ``l``: this many were left at the end.

``death`` is ``kill``: another process kills it; ``exit``: it calls os._exit at a line of standard input; ``fork``: a
forked child publishes and ends in the same way, while its parent, which has its own publisher, lives on and is killed
then; ``abort``: it aborts itself.
"""

import asyncio
import itertools
import json
import os
import random
import signal
import sys
import threading
import time
from typing import Any

from tests.support.commands import create_body

from waypost import Publisher, SyncPublisher
from waypost.wire.event_types import EventType

PAUSE_SECONDS = 0.002


def say(letter: str, number: int) -> None:
    """One line, in one write, so that a kill leaves whole lines."""
    os.write(1, f"{letter} {number}\n".encode())


def publish(publisher: Publisher | SyncPublisher, session: str, number: int) -> None:
    """One create; its number is in its command id."""
    body = create_body("n", {"number": number, "text": "d" * (number % 7 * 100)})
    publisher.publish_raw(session, EventType.CREATE, body, command_id=f"c-{number}")
    say("a", number)


def options(job: dict[str, Any]) -> dict[str, Any]:
    """Options of the publisher, with a callback that prints."""

    def delivered(command_id: str, error: BaseException | None) -> None:
        if error is None:
            say("d", int(command_id[2:]))

    return {**job["options"], "topic_prefix": job["prefix"], "on_delivery": delivered}


async def on_a_loop(job: dict[str, Any]) -> None:
    """Publish from an event loop until killed, or until the goal is reached."""
    chooser = random.Random(job["first"])
    async with Publisher(job["bootstrap"], **options(job)) as publisher:
        for number in itertools.count(job["first"]):
            if number - job["first"] == job["goal"]:
                say("l", await publisher.close(0.5))
                return
            await publisher.drain()
            publish(publisher, f"{job['session']}-{chooser.randrange(job['sessions'])}", number)
            if chooser.randrange(job["burst"]) == 0:
                await asyncio.sleep(PAUSE_SECONDS)


def in_threads(job: dict[str, Any]) -> None:
    """Publish from several threads until killed; each has its own sessions."""
    numbers = itertools.count(job["first"])
    publisher = SyncPublisher(job["bootstrap"], on_full="block", **options(job))

    def work(index: int) -> None:
        chooser = random.Random(job["first"] + index)
        mine = [f"{job['session']}-{number}" for number in range(index, job["sessions"], job["threads"])]
        for number in numbers:
            publish(publisher, chooser.choice(mine), number)
            if chooser.randrange(job["burst"]) == 0:
                time.sleep(PAUSE_SECONDS)

    threads = [threading.Thread(target=work, args=[index]) for index in range(job["threads"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def die_when_told(how: str) -> None:
    """End this process in the middle of its work, past all handlers."""

    def wait() -> None:
        sys.stdin.readline()
        if how == "abort":
            os.abort()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def work(job: dict[str, Any]) -> None:
    """Publish until the end."""
    if job["threads"]:
        in_threads(job)
    else:
        asyncio.run(on_a_loop(job))


def in_a_child(job: dict[str, Any]) -> None:
    """Publish from a forked child of a process that has a publisher too."""
    with SyncPublisher(job["bootstrap"], **options(job)) as publisher:
        publish(publisher, "of-the-parent", job["first"])
        if os.fork() == 0:
            die_when_told("exit")
            work({**job, "first": job["first"] + 1})
        os.wait()
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    if given["death"] == "fork":
        in_a_child(given)
    else:
        if given["death"] != "kill":
            die_when_told(given["death"])
        work(given)
