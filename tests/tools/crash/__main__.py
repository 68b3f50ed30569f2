"""``python -m tests.tools.crash``: kill agents, balance the books, write ``build/crash.json``, say what came of it."""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from tests.tools.crash.rounds import DEATHS, STATES, RoundReport, Rounds

from waypost import Topics
from waypost_worker.devserver import DevServerError, EmbeddedKafka
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.topics import create_topics

PARTITIONS = 2
#: After this many deaths, the commands are counted and a new topic begins.
BLOCK = 25
#: In each block once, Kafka itself is killed and comes back.
MODES: dict[str, dict[str, Any]] = {
    "spool": {},
    "no spool": {"spool": None},
}


async def block(kafka: EmbeddedKafka, mode: str, kills: int, seed: int, directory: Path) -> RoundReport:
    """Run some kills on a separate topic, and count the commands at the end."""
    topics = Topics(f"crash-{uuid.uuid4().hex[:8]}")
    await create_topics(Connection(kafka.bootstrap_servers), topics, PARTITIONS)
    rounds = Rounds(kafka, topics, directory / topics.prefix, seed)
    chooser = random.Random(seed)
    for number in range(kills):
        if number == kills // 2:
            kafka.kill()
            await rounds.kill("up", "kill", **MODES[mode])
            await asyncio.to_thread(kafka.restart)
        else:
            await rounds.kill(chooser.choice(STATES), chooser.choice(DEATHS), **MODES[mode])
        if sys.stderr.isatty():
            print(f"\r{mode}: {rounds.kills} of {kills} killed ", end="", file=sys.stderr, flush=True)
    await rounds.drain()
    return await rounds.verdict()


def wrong(mode: str, verdict: RoundReport) -> list[str]:
    """Return the violations of this mode's promise."""
    promised = (
        "applied_twice",
        "out_of_order",
        "missing_though_delivered",
    )
    found = [name for name in promised if getattr(verdict, name)]
    return found + (["missing"] if mode == "spool" and verdict.missing else [])


def main() -> int:
    """Run the blocks."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="with a spool (default 200)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the choices")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", file=sys.stderr)
    blocks = []
    began = time.monotonic()
    plan = [("spool", min(BLOCK, arguments.kills - start)) for start in range(0, arguments.kills, BLOCK)]
    plan.append(
        ("no spool", min(BLOCK, arguments.kills))
    )  # what the spool saves, and whether we would notice
    with tempfile.TemporaryDirectory() as name:
        try:
            with EmbeddedKafka(Path(name) / "kafka") as kafka:
                for number, (mode, kills) in enumerate(plan):
                    seed = arguments.seed + number
                    verdict = asyncio.run(block(kafka, mode, kills, seed, Path(name) / "spool"))
                    problems = wrong(mode, verdict)
                    blocks.append({"mode": mode, **verdict.to_dict(), "problems": problems})
                    print(f"\r{mode}: {verdict}, {problems or 'as promised'}", file=sys.stderr)
        except DevServerError as error:
            print(f"Kafka can't start, nothing was tested: {error}", file=sys.stderr)
            return 1
    report = {"seed": arguments.seed, "seconds": round(time.monotonic() - began), "blocks": blocks}
    Path("build").mkdir(exist_ok=True)
    Path("build/crash.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    failed = [one for one in blocks if one["problems"]]
    kills = sum(one["kills"] for one in blocks)
    print(f"{kills} kills, {len(blocks) - len(failed)} of {len(blocks)} blocks as promised: build/crash.json")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
