"""A modest number of seeds in every run of the tests; ``python -m tests.simulation`` runs as many as wanted."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.simulation.run import replay_command, run_many, run_seed
from tests.support.processes import begin

SEEDS = int(os.environ.get("WAYPOST_SIMULATION_SEEDS", "300"))


def test_nothing_is_lost_doubled_out_of_order_or_stuck(capsys: pytest.CaptureFixture[str]) -> None:
    commands = 0
    failed = []
    for outcome in run_many(range(SEEDS), os.cpu_count() or 1):
        commands += outcome.verdict.commands
        if outcome.failed:
            failed.append(f"{replay_command(outcome.seed)}: {outcome.verdict.problems[:3]}")
    with capsys.disabled():
        print(f" seeds 0 to {SEEDS - 1}, {commands} commands ", end="")
    assert not failed, "\n".join(failed)
    assert commands > 20 * SEEDS


def _ended_by_sigterm() -> None:
    begin()
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_process_of_the_pool_ends_on_sigterm_whatever_a_test_did_with_it() -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        forked = multiprocessing.get_context("fork").Process(target=_ended_by_sigterm)
        forked.start()
        forked.join(60)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert forked.exitcode == -signal.SIGTERM


@pytest.mark.parametrize("seed", [853, 909, 21934, 300103])
def test_a_seed_that_found_something_stays_good(seed: int) -> None:
    """853: another refused command in the place of the first; 909: a results position that Postgres lost;
    300103: results that are cut while they were only compared.
    """
    assert run_seed(seed).verdict.problems == []


def test_a_seed_replays_exactly_also_with_other_hashes() -> None:
    first: list[str] = []
    run_seed(11, first.append)
    assert len(first) > 100
    program = "from tests.simulation.run import run_seed; run_seed(11, print)"
    root = Path(__file__).parents[2]
    for hash_seed in ("1", "2"):
        ran = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
        )
        assert _without_addresses(ran.stdout.splitlines()) == _without_addresses(first)


def _without_addresses(lines: list[str]) -> list[str]:
    return [line.partition(" at 0x")[0] for line in lines]
