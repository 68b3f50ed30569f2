"""Commit messages: which ones ``make commits`` accepts, and when it has nothing to check."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy/check_commits.py"
LONG_URL = "https://example.org/" + 80 * "x"

Check = Callable[..., subprocess.CompletedProcess[str]]


def git(repository: Path, *arguments: str) -> str:
    # Nothing of the developer's own configuration takes part, nor a repository that calls this test from a hook.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    author = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(
        ["git", *author, *arguments],
        cwd=repository,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def commit(repository: Path, message: str) -> str:
    git(repository, "commit", "--allow-empty", "--cleanup=verbatim", "--message", message)
    return git(repository, "rev-parse", "HEAD")


def check(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(repository / "deploy/check_commits.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=repository.parent,
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with the script, and one commit that the rule forbids."""
    root = tmp_path / "repository"
    (root / "deploy").mkdir(parents=True)
    shutil.copy(SCRIPT, root / "deploy")
    git(root, "init")
    commit(root, "A commit from before the rule, with a subject much too long and of no particular form.")
    return root


@pytest.mark.parametrize(
    "message",
    [
        "kafka: check the log after a disturbed fetch",
        "tests/faults: freeze a worker between two statements",
        "reader, worker: quote the schema name",
        "README: name both commands",
        "a: " + 62 * "x",
        "kafka: check the log\n\nA recreated topic could refill past the old position.",
        f"docs: link the advisory\n\n{72 * 'x'}\n- {LONG_URL}\n[1]: {LONG_URL}\n",
        f"docs: thank\n\nCo-authored-by: {60 * 'x'} <x@example.org>",
    ],
)
def test_a_message_in_the_asked_form_is_accepted(repository: Path, message: str) -> None:
    base = git(repository, "rev-parse", "HEAD")
    commit(repository, message)
    done = check(repository, "--base", base)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"Commit messages after {base[:7]}: 1 checked, all well formed.\n"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("a: " + 63 * "x", "the subject has 66 characters, 65 are allowed"),
        ("Check the log after a fetch", "the form 'area: what it does'"),
        ("kafka:check the log", "the form 'area: what it does'"),
        ("kafka: ", "the form 'area: what it does'"),
        ("the whole worker: check the log", "the form 'area: what it does'"),
        ('Revert "kafka: check the log"', "the form 'area: what it does'"),
        ("kafka: check the log\nat once", "no blank line follows the subject"),
        ("kafka: check the log\n\n" + 36 * "x " + "y", "has 73 characters, wrap it at 72"),
        (f"kafka: check the log\n\nsee {LONG_URL}", "wrap it at 72: see https"),
    ],
)
def test_another_message_fails_with_what_is_wrong(repository: Path, message: str, said: str) -> None:
    base = git(repository, "rev-parse", "HEAD")
    commit(repository, "docs: a good one")
    bad = commit(repository, message)
    done = check(repository, "--base", base)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.splitlines()[0] == f"{bad[:7]} {message.splitlines()[0]}"
    assert done.stderr.splitlines()[-1].startswith(
        f"Commit messages after {base[:7]}: 2 checked, problems: 1;"
    )


def test_the_history_up_to_the_base_and_merges_are_exempt(repository: Path) -> None:
    base = git(repository, "rev-parse", "HEAD")
    git(repository, "switch", "--create", "side")
    commit(repository, "kafka: check the log")
    git(repository, "switch", "main")
    git(
        repository,
        "merge",
        "--no-ff",
        "--message",
        "Merge a branch, with a message that nobody wrote in the form of the others",
        "side",
    )
    done = check(repository, "--base", base)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"Commit messages after {base[:7]}: 1 checked, all well formed.\n"


def test_a_shallow_clone_is_not_checked(repository: Path, tmp_path: Path) -> None:
    base = git(repository, "rev-parse", "HEAD")
    commit(repository, "bad")
    git(tmp_path, "clone", "--depth", "1", f"file://{repository}", "clone")
    (tmp_path / "clone/deploy").mkdir()
    shutil.copy(SCRIPT, tmp_path / "clone/deploy")
    done = check(tmp_path / "clone", "--base", base)
    assert done.returncode == 0
    assert f"not checked: the history here lacks {base[:7]}, the last commit before the rule" in done.stdout


def test_a_history_next_to_the_base_is_not_checked(repository: Path) -> None:
    git(repository, "switch", "--create", "side")
    aside = commit(repository, "bad")
    git(repository, "switch", "main")
    commit(repository, "also bad")
    done = check(repository, "--base", aside)
    assert (done.returncode, done.stderr) == (0, "")
    assert "not checked" in done.stdout


def test_a_folder_without_git_is_not_checked(tmp_path: Path, repository: Path) -> None:
    shutil.rmtree(repository / ".git")
    done = check(repository)
    assert done.returncode == 0
    assert "Commit messages were not checked: " in done.stdout
    git(tmp_path, "init")  # a source archive unpacked inside another project: its commits are not ours
    commit(tmp_path, "bad")
    done = check(repository, "--base", git(tmp_path, "rev-parse", "HEAD"))
    assert done.returncode == 0
    assert "this folder is not the root of a git checkout" in done.stdout


def test_the_messages_of_this_repository_have_the_form() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
