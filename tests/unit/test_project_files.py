"""What others expect of a project besides its code: license, policies, forms and workflows, each valid and in step."""

import re
import subprocess
import sys
import tarfile
import tomllib
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = [
    found[1]
    for classifier in PROJECT["classifiers"]
    if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", classifier))
]


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text())
    return loaded


def steps() -> list[dict[str, Any]]:
    return [
        step for path in WORKFLOWS for job in load(path)["jobs"].values() for step in job.get("steps", [])
    ]


def validate(schema: str, path: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("check-jsonschema")
    return subprocess.run(
        [str(program), "--builtin-schema", schema, str(path)], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        *[("vendor.github-workflows", path) for path in WORKFLOWS],
        *[("custom.github-workflows-require-timeout", path) for path in WORKFLOWS],
        *[("vendor.github-issue-forms", path) for path in FORMS],
        ("vendor.github-issue-config", GITHUB / "ISSUE_TEMPLATE/config.yml"),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else value,
)
def test_a_file_of_the_host_is_valid_and_an_unknown_key_in_it_is_not(
    schema: str, path: Path, tmp_path: Path
) -> None:
    done = validate(schema, path)
    assert done.returncode == 0, done.stdout
    if not schema.startswith("custom."):
        wrong = tmp_path / path.name
        wrong.write_text(path.read_text() + "\nno-such-key: {no: such}\n")
        assert validate(schema, wrong).returncode != 0


def test_there_are_workflows_and_forms_to_look_at() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "release.yml"]
    assert [path.name for path in FORMS] == ["bug.yml", "feature.yml"]
    assert (GITHUB / "pull_request_template.md").exists()


def test_every_action_is_pinned_to_a_commit_and_says_which_version_that_is() -> None:
    used = [
        line
        for path in WORKFLOWS
        for line in re.findall(r"uses: (.*)$", path.read_text(), re.MULTILINE)
        if not line.startswith("./")
    ]
    assert len(used) > 5
    assert [line for line in used if not re.fullmatch(r"[\w/.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []
    pins = {tuple(line.split("@")) for line in used}
    assert len(pins) == len({action for action, _ in pins})  # the same commit wherever an action is used


def test_workflows_run_targets_of_the_makefile_that_exist() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    run = {target for step in steps() for target in re.findall(r"\bmake ([a-z-]+)", step.get("run", ""))}
    assert {"test", "demo", "dist"} <= run
    assert run <= targets
    assert "make test" in (ROOT / ".ci/run").read_text()


def test_no_job_keeps_credentials_or_has_more_rights_than_it_declares() -> None:
    for path in WORKFLOWS:
        workflow = load(path)
        assert workflow["permissions"] in ({}, {"contents": "read"})
        for name, job in workflow["jobs"].items():
            writes = [right for right, level in job.get("permissions", {}).items() if level == "write"]
            assert (path.name, name) in {
                ("release.yml", "build"),
                ("release.yml", "publish"),
                ("release.yml", "announce"),
            } or writes == []
    checkouts = [step for step in steps() if step.get("uses", "").startswith("actions/checkout@")]
    assert len(checkouts) >= 4
    assert [step for step in checkouts if step["with"]["persist-credentials"] is not False] == []


def test_a_release_is_tested_attested_and_published_without_a_stored_secret() -> None:
    jobs = load(GITHUB / "workflows/release.yml")["jobs"]
    assert jobs["test"]["uses"] == "./.github/workflows/ci.yml"
    assert "workflow_call" in load(GITHUB / "workflows/ci.yml")[True]  # YAML 1.1 reads the key "on" as true
    assert {"test", "build"} <= set(jobs["publish"]["needs"])
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    attested = [step["with"] for step in jobs["build"]["steps"] if "actions/attest@" in step.get("uses", "")]
    assert [sorted(inputs) for inputs in attested] == [["subject-path"], ["sbom-path", "subject-path"]]
    (publish,) = [step for step in jobs["publish"]["steps"] if "pypi-publish@" in step["uses"]]
    assert publish["with"] == {"packages-dir": "dist/", "attestations": True}
    assert "secrets." not in (GITHUB / "workflows/release.yml").read_text()


CHANGELOG = """# Changelog

## [0.10.0] - 2027-01-01

- ten

## 0.1.0 - 2026-12-01

### Added
- one
"""


@pytest.mark.parametrize(
    ("tag", "notes"),
    [("v0.1.0", "### Added - one"), ("v0.10.0", "- ten"), ("v0.1", None), ("v0.2.0", None)],
)
def test_the_notes_of_a_release_are_its_section_of_the_changelog(
    tag: str, notes: str | None, tmp_path: Path
) -> None:
    (script,) = [step["run"] for step in steps() if "CHANGELOG.md" in step.get("run", "")]
    (tmp_path / "build/dist-check").mkdir(parents=True)
    (tmp_path / "dist").mkdir()
    for version in ("0.1.0", "0.1", "0.10.0"):
        (tmp_path / f"dist/waypost-{version}.tar.gz").touch()
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=tmp_path,
        env={"TAG": tag, "PATH": "/usr/bin:/bin"},
        check=False,
        capture_output=True,
        text=True,
    )
    if notes is None:
        assert done.returncode != 0
        assert "CHANGELOG.md lacks 0.1" in done.stdout or "v0.2.0 is not the version" in done.stdout
    else:
        assert done.returncode == 0
        assert " ".join((tmp_path / "build/dist-check/notes.md").read_text().split()) == notes


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A wheel and a source archive, built without network."""
    to = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--directory", str(to)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,), (archive,) = to.glob("*.whl"), to.glob("*.tar.gz")
    return wheel, archive


@pytest.fixture(scope="module")
def metadata(built: tuple[Path, Path]) -> Message:
    with ZipFile(built[0]) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(wheel.read(name).decode())


def test_license_and_notice_are_in_the_wheel_and_in_the_source_archive(built: tuple[Path, Path]) -> None:
    wheel, archive = built
    with ZipFile(wheel) as opened, tarfile.open(archive) as unpacked:
        for name in ("LICENSE", "NOTICE"):
            text = (ROOT / name).read_bytes()
            (inside,) = [one for one in opened.namelist() if one.endswith(f".dist-info/licenses/{name}")]
            assert opened.read(inside) == text
            member = unpacked.extractfile(f"{archive.name.removesuffix('.tar.gz')}/{name}")
            assert member is not None
            assert member.read() == text


def test_the_source_archive_holds_what_its_makefile_and_tests_read(built: tuple[Path, Path]) -> None:
    _, archive = built
    root = archive.name.removesuffix(".tar.gz")
    with tarfile.open(archive) as unpacked:
        names = {name.removeprefix(f"{root}/") for name in unpacked.getnames()}
    expected = {
        *("Makefile", "mkdocs.yml", "pyproject.toml", "README.md", "SECURITY.md", "CODE_OF_CONDUCT.md"),
        *("requirements.lock", "requirements-demo.lock", "deploy/tools.lock", "deploy/docs.lock", ".ci/run"),
        *(str(path.relative_to(ROOT)) for path in (*WORKFLOWS, *FORMS)),
    }
    assert expected - names == set()
    assert {name.partition("/")[0] for name in names} & {"build", "dist", ".git"} == set()


def test_the_metadata_names_license_authors_and_addresses(metadata: Message) -> None:
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE", "NOTICE"]
    assert metadata["Author"]
    urls = dict(line.split(", ", 1) for line in metadata.get_all("Project-URL", []))
    assert {"Homepage", "Documentation", "Changelog", "Issues", "Security"} <= urls.keys()
    assert all(url.startswith(urls["Homepage"]) for url in urls.values())


def test_the_license_is_the_whole_text() -> None:
    text = (ROOT / "LICENSE").read_text()
    for part in (
        "Apache License",
        "Version 2.0, January 2004",
        "1. Definitions.",
        "9. Accepting Warranty or Additional Liability.",
        "END OF TERMS AND CONDITIONS",
        "APPENDIX: How to apply the Apache License to your work.",
    ):
        assert part in text
    assert len(text.split()) > 1500


def test_the_policy_names_the_versions_that_are_tested_and_checked_for() -> None:
    page = (ROOT / "docs/versioning.md").read_text()
    matrix = load(GITHUB / "workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert matrix == PYTHONS
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    assert f"| Python | {', '.join(PYTHONS[:-1])} and {PYTHONS[-1]} " in page
    sources = "\n".join(path.read_text() for path in (ROOT / "worker").rglob("*.py"))
    (postgres,) = re.findall(r"^OLDEST_SERVER: Final = (\d+)", sources, re.MULTILINE)
    assert f"| PostgreSQL | {postgres} or newer |" in page
    (kafka,) = set(re.findall(r"use Kafka (\d+\.\d+) or newer", sources))
    (embedded,) = set(re.findall(r'"org\.apache\.kafka:kafka_[\d.]+:(\d+\.\d+)', sources))
    assert f"| Kafka | {kafka} or newer | {embedded} |" in page


def test_links_of_the_policies_lead_somewhere() -> None:
    for name in ("SECURITY.md", "CODE_OF_CONDUCT.md"):
        text = (ROOT / name).read_text()
        links = [*re.findall(r"\]\(([^)]+)\)", text), *re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.MULTILINE)]
        assert links
        assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []
        assert all(
            re.search(rf"^\[{re.escape(used)}\]: ", text, re.MULTILINE)
            for used in re.findall(r"\]\[([^\]]+)\]", text)
        )
