"""Auditing the locks against advisories at hand: which versions an advisory is about, and what can't be told."""

import json
import re
import subprocess
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.version import Version
from tests.unit.deploy_scripts import script

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    return script("audit")


def advisory(name: str, *events: dict[str, str], **more: Any) -> dict[str, Any]:
    ranges = [{"type": "ECOSYSTEM", "events": list(events)}] if events else []
    affected = {
        "package": {"ecosystem": "PyPI", "name": name},
        "ranges": ranges,
        "versions": more.pop("versions", []),
    }
    return {"id": "X-1", "modified": "2026-01-02T03:04:05Z", "summary": "bad", "affected": [affected], **more}


def database(directory: Path, *advisories: dict[str, Any]) -> Path:
    made = directory / "database"
    made.mkdir()
    for number, one in enumerate(advisories):
        (made / f"{number}.json").write_text(json.dumps(one))
    return made


def repository(audit: ModuleType, directory: Path, pinned: str) -> Path:
    """Locks of which the first pins this, and the others something harmless."""
    for name in audit.LOCKS:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text("harmless==1.0 \\\n    --hash=sha256:00\n")
    (directory / audit.LOCKS[0]).write_text(f"{pinned} \\\n    --hash=sha256:00\n")
    return directory


@pytest.mark.parametrize(
    ("events", "inside", "outside"),
    [
        (
            [{"introduced": "0"}, {"fixed": "2.0"}],
            ["0.1", "1.9.9", "2.0rc1", "0.0.dev1"],
            ["2.0", "2.0.post1", "3"],
        ),
        ([{"introduced": "1.2"}, {"last_affected": "1.4"}], ["1.2", "1.4"], ["1.1", "1.4.1", "1.2b1"]),
        ([{"introduced": "1.2"}], ["1.2", "99"], ["1.1"]),
        (
            [{"introduced": "0"}, {"fixed": "1.5"}, {"introduced": "2.0"}, {"fixed": "2.3"}],
            ["1.4", "2.0", "2.2"],
            ["1.5", "1.9", "2.3", "10.0"],
        ),
        # Not in order, and compared as versions: 10 comes after 9.
        ([{"fixed": "10.0"}, {"introduced": "9.0"}], ["9.0", "9.5"], ["10.0", "8.0"]),
    ],
)
def test_a_range_holds_versions_between_its_events(
    audit: ModuleType, events: list[dict[str, str]], inside: list[str], outside: list[str]
) -> None:
    (affected,) = advisory("p", *events)["affected"]
    assert [text for text in (*inside, *outside) if audit.affects(affected, Version(text))] == inside


def test_versions_that_are_listed_count_by_what_they_mean(audit: ModuleType) -> None:
    (affected,) = advisory("p", versions=["1.0", "not a version"])["affected"]
    assert audit.affects(affected, Version("1.0.0"))
    assert not audit.affects(affected, Version("1.0.1"))


@pytest.mark.parametrize("zipped", [False, True])
def test_a_vulnerable_package_is_named_with_its_fix(
    audit: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], zipped: bool
) -> None:
    held = database(
        tmp_path, advisory("Some_Package", {"introduced": "0"}, {"fixed": "1.3"}, aliases=["CVE-1"])
    )
    if zipped:
        archive = tmp_path / "all.zip"
        with zipfile.ZipFile(archive, "w") as made:
            made.write(held / "0.json", "X-1.json")
        held = archive
    root = repository(audit, tmp_path / "repository", "some.package[extra]==1.2 ; python_version > '3'")
    assert audit.main([str(held)], root) == 1
    told = capsys.readouterr().out
    assert "the newest of 2026-01-02" in told
    assert "some-package 1.2: X-1, CVE-1, fixed in 1.3: bad" in told
    assert "requirements.lock: 1 packages, 1 findings" in told
    assert "deploy/worker.lock: 1 packages, 0 findings" in told


def test_fixed_withdrawn_and_foreign_vulnerabilities_are_not_findings(
    audit: ModuleType, tmp_path: Path
) -> None:
    foreign = advisory("some-package", {"introduced": "0"})
    foreign["affected"][0]["package"]["ecosystem"] = "npm"
    commits = advisory("some-package")
    commits["affected"][0]["ranges"] = [{"type": "GIT", "events": [{"introduced": "0"}]}]
    held = database(
        tmp_path,
        advisory("some-package", {"introduced": "0"}, {"fixed": "1.3"}),
        advisory("some-package", {"introduced": "0"}, withdrawn="2026-01-01T00:00:00Z"),
        foreign,
        commits,
    )
    root = repository(audit, tmp_path / "repository", "some-package==1.3")
    assert audit.main([str(held)], root) == 0


@pytest.mark.parametrize(
    ("content", "said"), [("{", "not JSON"), ("[]", "no id"), ("{}", "no id"), (None, "holds no advisory")]
)
def test_an_unreadable_database_is_not_a_clean_audit(
    audit: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, said: str
) -> None:
    held = database(tmp_path)
    if content is not None:
        (held / "x.json").write_text(content)
    assert audit.main([str(held)], repository(audit, tmp_path / "repository", "p==1")) == 2
    assert said in capsys.readouterr().err


def test_without_a_database_and_with_one_that_is_not_there_it_says_what_it_needs(
    audit: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.main([""]) == 2
    assert "make audit DATABASE=" in capsys.readouterr().err
    assert audit.main([str(tmp_path / "none")]) == 2
    assert "neither a directory nor a zip file" in capsys.readouterr().err


def test_every_lock_of_the_repository_is_looked_at(audit: ModuleType) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "*.lock"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("this is no git checkout: nothing says which files are tracked")
    locks = [name for name in listed.stdout.split() if "--hash=sha256:" in (ROOT / name).read_text()]
    assert sorted(locks) == sorted(audit.LOCKS)
    for name in audit.LOCKS:
        text = (ROOT / name).read_text()
        pinned = [line for line in text.splitlines() if re.match(r"[A-Za-z0-9]", line)]
        assert len(audit.locked(text)) == len(pinned) > 0
