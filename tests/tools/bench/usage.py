"""CPU seconds of the processes that take part, from /proc; and of everything else on the machine."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_ESTABLISHED: Final = "01"  # as the kernel writes it


def process_seconds(pid: int) -> float:
    """User and system time of a process and of its children that ended; 0 once it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(field) for field in fields[11:15]) / _TICKS


def children_of(pid: int) -> list[int]:
    """Its living children."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(child) for child in text.split()]


def is_backend(pid: int) -> bool:
    """Return whether a child of the postmaster serves a client; the others write, sync and clean up."""
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return b"127.0.0.1(" in title


def machine_seconds() -> float:
    """CPU time that the whole machine spent on anything."""
    fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
    user, nice, system, _, _, irq, softirq, steal = (int(field) for field in fields[:8])
    return (user + nice + system + irq + softirq + steal) / _TICKS


def snapshot(processes: Mapping[str, int], postmaster: int) -> dict[str, float]:
    """CPU seconds by role: ``processes`` with their children, Postgres in two parts, this process, the machine."""
    seconds = {
        name: process_seconds(pid) + sum(map(process_seconds, children_of(pid)))
        for name, pid in processes.items()
    }
    seconds["postgres_backends"] = seconds["postgres_background"] = 0.0
    for child in children_of(postmaster):
        role = "postgres_backends" if is_backend(child) else "postgres_background"
        seconds[role] += process_seconds(child)
    seconds["postgres_background"] += process_seconds(postmaster)
    seconds["observer"] = process_seconds(os.getpid())
    seconds["machine"] = machine_seconds()
    return seconds


def spent(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """CPU seconds by role between two snapshots; ``elsewhere`` is what others on this machine used."""
    seconds = {role: max(0.0, after[role] - before.get(role, 0.0)) for role in after}
    machine = seconds.pop("machine")
    seconds["elsewhere"] = max(0.0, machine - sum(seconds.values()))
    return seconds


def connected_ports(pid: int) -> list[int]:
    """Return the remote port of each TCP connection of a process and of its living children."""
    ports = []
    for process in (pid, *children_of(pid)):
        mine = {
            name[8:-1]
            for name in map(_target, Path(f"/proc/{process}/fd").iterdir())
            if name.startswith("socket:[")
        }
        for family in ("tcp", "tcp6"):
            for line in Path(f"/proc/{process}/net/{family}").read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[9] in mine and fields[3] == _ESTABLISHED:
                    ports.append(int(fields[2].rpartition(":")[2], 16))
    return ports


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except OSError:  # closed meanwhile
        return ""
