"""What the container image runs, without a container engine: the wheel and the locked packages alone, in a tree
that cannot be written, as a user who owns nothing, as process 1.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from tests.integration.test_worker_process import publish
from tests.support.deployment import Deployment, deployment
from tests.support.processes import descendants
from tests.unit.test_deploy_files import pins

from waypost_worker.devserver import Servers

ROOT = Path(__file__).parents[2]
USER = 10001
PYTHON = os.path.realpath(sys.executable)


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """A directory as the image has it: ``site`` with the wheel and what worker.lock names."""
    place = Path(tempfile.mkdtemp(prefix="waypost-image-"))
    try:
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place / "wheels")]
        subprocess.run(build, check=True, capture_output=True, cwd=ROOT, timeout=120)
        (wheel,) = (place / "wheels").glob("waypost-*.whl")
        site = place / "site"
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(site)
        for name in locked((ROOT / "deploy/worker.lock").read_text()):
            _copy(name, site)
        place.chmod(0o755)
        subprocess.run(["chmod", "-R", "a+rX,a-w", str(place)], check=True)
        yield place
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(place)], check=True)
        shutil.rmtree(place)


def locked(text: str) -> list[str]:
    """The packages of a lock that are installed here: those whose marker, if they have one, holds."""
    named = re.findall(r"^[A-Za-z0-9._-]+==[^\\\n]+", text, re.MULTILINE)
    requirements = [Requirement(line) for line in named]
    assert {one.name for one in requirements} == set(pins(text))
    return [one.name for one in requirements if one.marker is None or one.marker.evaluate()]


def _copy(name: str, site: Path) -> None:
    for file in distribution(name).files or ():
        source = Path(str(file.locate()))
        if ".." not in file.parts and source.suffix != ".pyc":
            target = site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


def contained(image: Path) -> list[str]:
    """A prefix for a command that then is process 1 on a read-only root, and cannot become root.

    Skips where this process may not arrange that.
    """
    script = 'mount -o remount,bind,ro / && mount -o remount,bind,ro /tmp 2>/dev/null; exec "$@"'
    command = [
        *("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh"),
        *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs"),
        "--bounding-set=-all",
    ]
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("setpriv") is None:
        pytest.skip("needs root, unshare and setpriv")
    probe = [*command, PYTHON, "-S", "-c", "import os; print(os.getpid(), os.geteuid())"]
    done = subprocess.run(probe, check=False, capture_output=True, text=True, cwd=image, timeout=30)
    if done.returncode:
        pytest.skip(f"can't be contained here: {done.stderr.strip()}")
    assert done.stdout.split() == ["1", str(USER)]
    return command


def environment(image: Path, **settings: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(image / "site"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        **settings,
    }


def waypost(*arguments: str) -> list[str]:
    # Without the site module: nothing of this machine's other packages is there.
    return [PYTHON, "-S", "-c", "from waypost_worker.cli import main; main()", *arguments]


@pytest.fixture
async def here(servers: Servers, database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, database, topic_prefix, partitions=2) as made:
        yield made


def test_the_image_has_all_that_the_command_line_and_the_worker_import(image: Path) -> None:
    checks = """
import pathlib, sys
for file in sorted(pathlib.Path('site/waypost_worker').rglob('*.py')):
    name = '.'.join(file.relative_to('site').with_suffix('').parts)
    if 'devserver' not in name and not name.endswith(('__main__', '.check')):
        __import__(name)
import obstore, obstore.store, opentelemetry.exporter.otlp.proto.http.trace_exporter
print(len(sys.modules))
"""
    done = subprocess.run(
        [PYTHON, "-S", "-c", checks],
        check=False,
        env=environment(image),
        cwd=image,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    shown = subprocess.run(
        [*waypost("--version")], check=True, env=environment(image), cwd=image, capture_output=True, text=True
    )
    assert shown.stdout.strip() == distribution("waypost").version


def test_the_image_runs_what_the_project_declares() -> None:
    text = (ROOT / "deploy/Containerfile").read_text()
    instructions = dict(line.split(" ", 1) for line in text.splitlines() if line[:3] in ("ENT", "CMD", "USE"))
    assert json.loads(instructions["ENTRYPOINT"]) == ["waypost"]
    assert json.loads(instructions["CMD"]) == ["worker"]
    assert instructions["USER"] == f"{USER}:{USER}"
    scripts = [point for point in distribution("waypost").entry_points if point.name == "waypost"]
    assert [point.value for point in scripts] == ["waypost_worker.cli:main"]


def start(image: Path, settings: dict[str, str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as output:
        return subprocess.Popen(
            [*contained(image), *waypost("worker")], env=settings, cwd=image, stdout=output, stderr=output
        )


def health(image: Path, settings: dict[str, str], port: int) -> int:
    """What the image's health check exits with."""
    command = [PYTHON, "-S", "-m", "waypost_worker.web.check", "/livez"]
    env = {**settings, "WAYPOST_HTTP_PORT": str(port)}
    return subprocess.run(command, check=False, env=env, cwd=image, timeout=30).returncode


def status(pid: int) -> dict[str, list[str]]:
    """What the kernel says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: values.split() for name, _, values in (line.partition(":") for line in lines)}


async def test_a_worker_runs_as_process_1_on_a_read_only_root_and_drains_on_sigterm(
    here: Deployment, image: Path, tmp_path: Path
) -> None:
    settings = environment(
        image,
        WAYPOST_BOOTSTRAP_SERVERS=here.endpoints.bootstrap_servers,
        WAYPOST_POSTGRES_DSN=here.dsn,
        WAYPOST_TOPIC_PREFIX=here.topics.prefix,
        WAYPOST_GROUP_ID=here.topics.prefix,
        WAYPOST_HTTP_PORT="0",
    )
    log = tmp_path / "log"
    started = start(image, settings, log)
    try:
        await here.until(lambda: "http_listening" in log.read_text() or started.poll() is not None)
        port = next(
            json.loads(line)["port"] for line in log.read_text().splitlines() if "http_listening" in line
        )
        await publish(here, 20)
        await here.answered(20)
        (pid,) = descendants(started.pid)
        found = status(pid)
        assert set(found["Uid"]) == {str(USER)}
        assert int(found["CapEff"][0], 16) == 0
        assert found["NSpid"][-1] == "1"
        assert health(image, settings, port) == 0
        os.kill(pid, signal.SIGTERM)
        assert started.wait(40) == 0
        assert '"worker_stopped"' in log.read_text()
        assert health(image, settings, port) == 1
    finally:
        if started.poll() is None:
            started.kill()
            started.wait()


def test_without_a_port_there_is_nothing_to_check(image: Path) -> None:
    command = [PYTHON, "-S", "-m", "waypost_worker.web.check"]
    done = subprocess.run(
        command, check=False, env=environment(image), cwd=image, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert "WAYPOST_HTTP_PORT is not set" in done.stderr
