"""A supervised process never outlives its owner, and ends completely."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.support.processes import descendants, wait_until_gone
from tests.support.timeouts import PATIENCE

from waypost_worker.devserver.process import StopSteps, SupervisedProcess

PATIENT: StopSteps = ((signal.SIGTERM, 10.0),)
HURRIED: StopSteps = ((signal.SIGTERM, 0.2),)

SLEEP = "import time; print('up', flush=True); time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"
LEAVES_A_CHILD = """
import os, signal, sys
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print('up', flush=True)
    signal.pause()
signal.pause()
"""

OWNER = """
import os, sys, signal
from pathlib import Path
from waypost_worker.devserver.process import SupervisedProcess
process = SupervisedProcess(
    [sys.executable, "-c", sys.argv[2]], log=Path(sys.argv[1]), stop=((signal.SIGTERM, 0.2),)
)
print(process.pid, flush=True)
{then}
"""


def python(code: str, log: Path, stop: StopSteps = PATIENT) -> SupervisedProcess:
    process = SupervisedProcess([sys.executable, "-c", code], log=log, stop=stop)
    wait_for_line(log)
    return process


def wait_for_line(log: Path) -> None:
    follow = ["timeout", "30", "tail", "-n", "+1", "-F", str(log)]
    with subprocess.Popen(follow, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as tail:
        assert tail.stdout is not None
        assert tail.stdout.readline() == b"up\n"
        tail.terminate()


def start_owner(log: Path, code: str, then: str) -> tuple[subprocess.Popen[str], int]:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER.format(then=then), str(log), code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    wait_for_line(log)
    return owner, pid


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


def test_it_ends_when_its_owner_is_killed(log: Path) -> None:
    owner, pid = start_owner(log, SLEEP, "signal.pause()")
    everything = descendants(owner.pid)
    assert pid in everything
    owner.kill()
    owner.wait()
    assert wait_until_gone(everything, PATIENCE) == []


def test_it_ends_when_its_owner_just_returns(log: Path) -> None:
    owner, pid = start_owner(log, SLEEP, "input()")
    owner.communicate("\n")
    assert owner.returncode == 0
    assert wait_until_gone([pid], PATIENCE) == []


def test_it_ends_although_a_fork_of_the_killed_owner_lives_on(log: Path) -> None:
    owner, pid = start_owner(log, SLEEP, "fork = os.fork()\nif fork: print(fork, flush=True)\nsignal.pause()")
    assert owner.stdout is not None
    fork = int(owner.stdout.readline())
    try:
        owner.kill()
        owner.wait()
        assert wait_until_gone([pid], PATIENCE) == []
        os.kill(fork, 0)
    finally:
        os.kill(fork, signal.SIGKILL)


def test_it_ends_when_its_supervisor_is_killed(log: Path) -> None:
    process = python(SLEEP, log)
    (supervisor,) = [each for each in descendants(os.getpid()) if process.pid in descendants(each)]
    os.kill(supervisor, signal.SIGKILL)
    assert wait_until_gone([process.pid], PATIENCE) == []


def test_it_outlives_the_thread_that_started_it(log: Path) -> None:
    started: list[SupervisedProcess] = []
    thread = threading.Thread(target=lambda: started.append(python(SLEEP, log)))
    thread.start()
    thread.join()
    (process,) = started
    with pytest.raises(RuntimeError, match=r"did not end within 0\.3 s"):
        process.wait(0.3)
    assert process.stop() == 128 + signal.SIGTERM


def test_ctrl_c_does_not_reach_it_directly(log: Path) -> None:
    process = python(SLEEP, log)
    assert os.getsid(process.pid) != os.getsid(0)
    process.stop()


def test_one_that_ignores_the_polite_signal_is_killed(log: Path) -> None:
    assert python(DEAF, log, HURRIED).stop() == 128 + signal.SIGKILL


def test_a_suspended_one_can_be_stopped(log: Path) -> None:
    process = python(SLEEP, log)
    process.signal(signal.SIGSTOP)
    assert process.stop() == 128 + signal.SIGTERM


def test_stopping_also_ends_what_it_left_behind(log: Path) -> None:
    process = python(LEAVES_A_CHILD, log)
    (child,) = descendants(process.pid)
    process.stop()
    assert wait_until_gone([child], 0) == []


def test_stopping_twice_gives_the_same_exit_code(log: Path) -> None:
    process = python(SLEEP, log)
    assert process.stop() == process.stop() == process.exit_code


def test_a_missing_program_is_reported_in_the_log(log: Path) -> None:
    process = SupervisedProcess(["/no/such/program"], log=log, stop=PATIENT)
    assert process.wait(10) == 127
    assert "could not start /no/such/program" in log.read_text()
