"""What is taken from elsewhere is pinned by hash, and no tracked file holds a secret."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "deploy/worker.lock", "deploy/build.lock", "deploy/docs.lock")
# Private keys, and tokens of the services that give theirs a form of its own; the dots keep this file innocent.
SECRETS = re.compile(
    r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{20}"
    r"|\bA(?:KIA|SIA)[0-9A-Z]{16}\b"
    r"|\bgh[pousr]_[A-Za-z0-9]{36}\b"
    r"|\bgithub_pat_[A-Za-z0-9_]{60,}"
    r"|\bglpat-[A-Za-z0-9_-]{20,}"
    r"|\bxox[baprs]-[A-Za-z0-9-]{20,}"
    r"|\bsk-[A-Za-z0-9_-]{32,}"
    r"|\bpypi-[A-Za-z0-9_-]{50,}"
    r"|\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"
)


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout: nothing says which files are tracked")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_tracked_file_holds_a_private_key_or_a_token() -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in tracked()
        if SECRETS.search(path.read_text(encoding="utf-8", errors="replace"))
    }
    assert not found


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN " + "PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0B",
        "-----BEGIN " + "EC PRIVATE KEY-----\nMHcCAQEEIIIIIIIIIIIIIIIIII",
        "AKIA" + "ABCDEFGHIJKLMNOP",
        "ghp" + "_" + 36 * "a",
        "sk" + "-" + 40 * "b",
        "eyJhbGciOiJub25l" + ".eyJzdWIiOiJyb290In0" + ".c2lnbmF0dXJl",
    ],
)
def test_the_scan_finds_what_it_looks_for(text: str) -> None:
    assert SECRETS.search(f"x = '{text}'")


def requirements(text: str) -> list[str]:
    """Each requirement with all its options on one line."""
    return [line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_is_one_version_with_its_hashes(lock: str) -> None:
    lines = requirements((ROOT / lock).read_text())
    assert lines
    loose = [
        line.split(" ")[0]
        for line in lines
        if not re.match(r"[A-Za-z0-9._-]+(\[[^\]]*\])?==\S+", line) or "--hash=sha256:" not in line
    ]
    assert not loose


def test_images_and_what_they_install_are_pinned() -> None:
    containerfile = (ROOT / "deploy/Containerfile").read_text()
    images = re.findall(r"^ARG PYTHON_IMAGE=(\S+)", containerfile, re.M)
    files = [ROOT / "deploy/compose.yaml", ROOT / "deploy/helm/waypost/values.yaml"]
    files += (ROOT / "deploy/kubernetes/components/servers").glob("*.yaml")
    for file in files:
        images += re.findall(r"^ +(?:image|\w+Image): (\S+)", file.read_text(), re.M)
    foreign = [image for image in images if "registry.waypost.example/waypost:" not in image]
    assert len(foreign) == 7
    # Each names its registry, too: an engine that is not told one asks whichever it likes.
    pinned = re.compile(r"[a-z.]+\.[a-z]+/[a-z/]+:[\w.-]+@sha256:[0-9a-f]{64}")
    assert not [image for image in foreign if not pinned.fullmatch(image)]
    installs = [line for line in containerfile.replace("\\\n", " ").splitlines() if "pip install" in line]
    assert installs
    assert not [line for line in installs if "--require-hashes" not in line and "--no-deps" not in line]


def test_a_setup_checks_the_hashes() -> None:
    assert "--require-hashes -r requirements.lock" in (ROOT / "Makefile").read_text()


def test_nothing_is_ever_unpickled() -> None:
    loads = re.compile(
        r"^\s*(?:import|from) (?:pickle|cPickle|dill|cloudpickle|shelve|marshal)\b|yaml\.load\(", re.M
    )
    sources = [path for path in tracked() if path.suffix == ".py" and path.is_relative_to(ROOT / "schemas")]
    sources += [path for path in tracked() if path.suffix == ".py" and path.is_relative_to(ROOT / "worker")]
    assert len(sources) > 100
    assert not [path for path in sources if loads.search(path.read_text())]
