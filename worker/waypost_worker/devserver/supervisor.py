"""Runs one server process that never outlives its owner.

Runs by its path, as a separate Python process, with a JSON specification as its argument, so it uses only the standard
library. It owns the server's life: it starts the server, watches the owner, stops the server when the owner closes the
pipe or dies (even by SIGKILL), and ends when every process of the server has ended. It knows nothing about Kafka or
Postgres.

- The owner holds the other end of standard input. Its end, for whatever reason, closes it. A child
  forked by the owner could keep the pipe open, so the parent's process id is looked at as well.
- The server gets PR_SET_PDEATHSIG, so that it dies when this process is killed. That signal fires
  on the death of the thread that forked; here there is only one.
- This process is the reaper of all of the server's descendants: those that the server leaves behind
  (Postgres' backends, when the postmaster is killed) become its children, and it ends after the last.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import time
from typing import Any

OWNER_CHECK_SECONDS = 1.0
ORPHAN_SECONDS = 3.0
EXIT_NOT_STARTED = 127
# A server's files contain what agents publish. Without this, Kafka would create files that other users can read.
PRIVATE = 0o077

_PR_SET_PDEATHSIG = 1
_PR_SET_SECUREBITS = 28
_PR_SET_CHILD_SUBREAPER = 36
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_CAP_DAC_OVERRIDE = 1
_CAP_DAC_READ_SEARCH = 2
_CAPABILITY_VERSION_3 = 0x20080522


def main() -> int:
    """Run the server of the specification in argv[1]; return its exit code (128 + n for signal n)."""
    spec: dict[str, Any] = json.loads(sys.argv[1])
    os.umask(PRIVATE)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    server = _spawn(spec)
    os.write(1, f"{server}\n".encode())
    os.close(1)

    status = _watch(server, spec["owner"], wake_read)
    if status is None:
        status = _stop(server, spec["stop"], wake_read)
    _reap_orphans(wake_read)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _watch(server: int, owner: int, wake: int) -> int | None:
    """Wait until the server has ended (its wait status) or the owner wants or has to see it end (None)."""
    while True:
        pid, status = os.waitpid(server, os.WNOHANG)
        if pid:
            return status
        if os.getppid() != owner:
            return None
        ready, _, _ = select.select([0, wake], [], [], OWNER_CHECK_SECONDS)
        if 0 in ready and not os.read(0, 1):
            return None
        if wake in ready:
            os.read(wake, 4096)


def _stop(server: int, steps: list[tuple[int, float]], wake: int) -> int:
    """Send the signals of `steps`, each with its patience in seconds, then SIGKILL; the wait status."""
    for number, patience in steps:
        os.kill(server, number)
        os.kill(server, signal.SIGCONT)
        deadline = time.monotonic() + patience
        while (left := deadline - time.monotonic()) > 0:
            pid, status = os.waitpid(server, os.WNOHANG)
            if pid:
                return status
            ready, _, _ = select.select([wake], [], [], left)
            if ready:
                os.read(wake, 4096)
    os.kill(server, signal.SIGKILL)
    return os.waitpid(server, 0)[1]


def _reap_orphans(wake: int) -> None:
    """Wait for the processes that the server left behind; kill what doesn't end by itself."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid:
            continue
        left = deadline - time.monotonic()
        if left <= 0:
            with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as children:
                for orphan in children.read().split():
                    os.kill(int(orphan), signal.SIGKILL)
        ready, _, _ = select.select([wake], [], [], max(left, OWNER_CHECK_SECONDS))
        if ready:
            os.read(wake, 4096)


def _spawn(spec: dict[str, Any]) -> int:
    supervisor = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        if spec["user"] is not None:
            _become(*spec["user"])
        # After the change of user, which clears it.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, spec["death_signal"], 0, 0, 0)
        if os.getppid() == supervisor:
            os.execve(spec["argv"][0], spec["argv"], spec["environment"])  # noqa: S606 - no shell is wanted
    except BaseException as error:
        os.write(2, f"could not start {spec['argv'][0]}: {error}\n".encode())
    os._exit(EXIT_NOT_STARTED)


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityData(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def _become(uid: int, gid: int) -> None:
    """Give up root for an ordinary user that may still pass through directories closed to it.

    Postgres refuses to run as root, and its programs and data may be below a directory such as /root that no other user
    may enter. Rather than open such directories to everybody, keep one capability: to search and read (or, if the
    container doesn't grant that, to override file permissions). If neither is granted, ordinary permissions apply.
    """
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    for capability in (_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE):
        bit = 1 << capability
        data = (_CapabilityData * 2)(_CapabilityData(bit, bit, bit), _CapabilityData(0, 0, 0))
        if libc.capset(ctypes.byref(header), data) == 0:
            libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0)
            return


if __name__ == "__main__":
    sys.exit(main())
