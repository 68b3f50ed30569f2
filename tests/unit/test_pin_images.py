"""Renewing the digests of base images, with tools that stand in for those that ask a registry."""

import os
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from tests.unit.deploy_scripts import script

ROOT = Path(__file__).parents[2]
OLD, NEW = f"sha256:{'0' * 64}", f"sha256:{'a' * 64}"


@pytest.fixture(scope="module")
def pin() -> ModuleType:
    return script("pin_images")


@pytest.fixture
def root(tmp_path: Path, pin: ModuleType) -> Path:
    """The real files, in a place of the test's own."""
    for name in pin.FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where executables are found, and nowhere else but the shell's own."""
    made = tmp_path / "bin"
    made.mkdir()
    os.symlink("/bin/sh", made / "sh")
    monkeypatch.setenv("PATH", str(made))
    return made


def put(path: Path, name: str, script: str) -> Path:
    """A tool that writes down what it is asked, and then does this."""
    asked = path / f"{name}.asked"
    (path / name).write_text(f'#!/bin/sh\necho "$@" >> {asked}\n{script}\n')
    (path / name).chmod(0o755)
    return asked


def texts(root: Path, pin: ModuleType) -> list[str]:
    return [(root / name).read_text() for name in pin.FILES]


@pytest.mark.parametrize(
    ("tool", "asked"),
    [
        ("crane", "digest {}"),
        ("skopeo", "inspect --no-tags --format {{{{.Digest}}}} docker://{}"),
        ("docker", "buildx imagetools inspect {} --format {{{{.Manifest.Digest}}}}"),
    ],
)
def test_each_image_is_looked_up_by_its_tag_and_pinned(
    root: Path, path: Path, pin: ModuleType, tool: str, asked: str
) -> None:
    images = pin.pinned(root)
    assert len(images) == 3
    before = texts(root, pin)
    questions = put(path, tool, f"echo {NEW}")
    assert pin.main([], root) == 0
    assert questions.read_text().splitlines() == [asked.format(image) for image in images]
    assert pin.pinned(root) == dict.fromkeys(images, NEW)
    for old, new in zip(before, texts(root, pin), strict=True):
        digests = "|".join(images.values())
        assert new == re.sub(digests, NEW, old), "nothing else was changed"


def test_the_check_writes_nothing(root: Path, path: Path, pin: ModuleType) -> None:
    before = texts(root, pin)
    put(path, "crane", f"echo {NEW}")
    assert pin.main(["--check"], root) == 1
    assert texts(root, pin) == before
    pin.renew(root, dict.fromkeys(pin.pinned(root), NEW))
    assert pin.main(["--check"], root) == 0


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("echo no such image >&2; exit 1", "no such image"),
        ("echo sha256:short", "said sha256:short"),
        ("", "said nothing"),
    ],
)
def test_a_look_up_that_fails_changes_nothing_and_says_why(
    root: Path, path: Path, pin: ModuleType, capsys: pytest.CaptureFixture[str], does: str, said: str
) -> None:
    before = texts(root, pin)
    first, *_ = pin.pinned(root)
    # The first image is found, which must not be written either.
    put(path, "crane", f'case "$2" in {first}) echo {NEW}; exit;; esac\n{does}')
    assert pin.main([], root) == 2
    assert said in (told := capsys.readouterr().err)
    assert "Nothing was changed" in told
    assert texts(root, pin) == before


def test_without_a_tool_it_says_which_it_could_use(
    root: Path, path: Path, pin: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pin.main([], root) == 2
    assert "none of crane, skopeo, docker is on PATH" in capsys.readouterr().err
