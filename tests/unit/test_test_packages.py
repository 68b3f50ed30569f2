"""``deploy/install-test-packages`` installs what tests would be skipped without, and never fails."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "install-test-packages"
# All that the script itself calls.
PROGRAMS = ("sh", "cat", "chmod", "ls", "rm")


@dataclass(frozen=True)
class Machine:
    """A machine with nothing but these programs on its path."""

    bin: Path
    policy: Path
    log: Path

    def has(self, name: str, text: str = "") -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def run(self) -> tuple[str, str]:
        """Run the script; what it printed, and the calls of apt-get."""
        env = {"PATH": str(self.bin), "POLICY": str(self.policy), "LOG": str(self.log)}
        ran = subprocess.run(["sh", str(SCRIPT)], env=env, capture_output=True, text=True, check=True)
        return ran.stdout + ran.stderr, self.log.read_text() if self.log.exists() else ""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path / "bin", tmp_path / "policy", tmp_path / "log")
    made.bin.mkdir()
    for name in PROGRAMS:
        os.symlink(str(shutil.which(name)), made.bin / name)
    made.has("id", "echo 0")
    made.has("curl")
    made.has("chromium")
    made.has("pg_config")
    # The policy that keeps services from starting must be there when a package is installed.
    made.has("apt-get", 'for last; do :; done; echo "$1 $last $(cat "$POLICY")" >>"$LOG"')
    return made


def test_what_is_missing_is_installed_and_no_service_starts(machine: Machine) -> None:
    said, calls = machine.run()
    assert "Installing Debian packages that tests need: jq pgbouncer\n" in said
    assert calls == "install jq #!/bin/sh\nexit 101\ninstall pgbouncer #!/bin/sh\nexit 101\n"
    assert not machine.policy.exists()


def test_nothing_is_done_if_everything_is_there(machine: Machine) -> None:
    machine.has("jq")
    machine.has("pgbouncer")
    assert machine.run() == ("", "")


def test_a_package_that_cannot_be_installed_is_reported_after_one_update(machine: Machine) -> None:
    machine.has("apt-get", 'for last; do :; done; echo "$1 $last" >>"$LOG"; [ "$last" != pgbouncer ]')
    said, calls = machine.run()
    assert "Tests that need one of these Debian packages will be skipped: pgbouncer. apt-get can't" in said
    assert calls == "install jq\ninstall pgbouncer\nupdate -qq\ninstall pgbouncer\n"


@pytest.mark.parametrize("lacks", ["root", "apt-get"])
def test_without_root_or_apt_it_is_only_reported(machine: Machine, lacks: str) -> None:
    if lacks == "root":
        machine.has("id", "echo 1000")
    else:
        (machine.bin / "apt-get").unlink()
    said, calls = machine.run()
    assert "will be skipped: jq pgbouncer. " in said
    assert lacks in said
    assert calls == ""


def test_another_browser_will_do(machine: Machine) -> None:
    (machine.bin / "chromium").unlink()
    assert "chromium" in machine.run()[0]
    machine.has("google-chrome")
    assert "chromium" not in machine.run()[0]


def test_a_policy_that_was_there_stays(machine: Machine) -> None:
    machine.policy.write_text("mine")
    machine.run()
    assert machine.policy.read_text() == "mine"
