"""The ACLs as they are printed: lines, JSON, and the manifests agree."""

import shlex
from pathlib import Path
from typing import Any

import yaml
from tests.support.cli import CommandLine

from waypost import Topics
from waypost_worker.kafka.acls import least_acls

USERS = Path(__file__).parents[2] / "deploy/kubernetes/components/strimzi/users.yaml"


def test_the_lines_say_what_the_json_says(tmp_path: Path) -> None:
    line = CommandLine(tmp_path, {"WAYPOST_TOPIC_PREFIX": "prod", "WAYPOST_GROUP_ID": "a group"})
    rows = line.run("topics", "acls", "-o", "json").json
    said = line.run("topics", "acls").out.splitlines()
    assert [_from_line(text) for text in said if not text.startswith("#")] == [
        {key: row[key] for key in ("principal", "resource", "name", "pattern", "operations")} for row in rows
    ]
    assert {row["role"] for row in rows} == {"agent", "subscriber", "worker", "console", "operator"}


def _from_line(text: str) -> dict[str, Any]:
    program, *words = shlex.split(text)
    assert program == "kafka-acls.sh"
    found: dict[str, Any] = {"operations": [], "pattern": "literal"}
    while words:
        word = words.pop(0)
        match word:
            case "--add":
                continue
            case "--bootstrap-server":
                assert words.pop(0) == "localhost:9092"
            case "--allow-principal":
                found["principal"] = words.pop(0)
            case "--operation":
                found["operations"].append(words.pop(0))
            case "--resource-pattern-type":
                found["pattern"] = words.pop(0)
            case "--cluster":
                found |= {"resource": "cluster", "name": "kafka-cluster"}
            case _:
                found |= {"resource": word.removeprefix("--"), "name": words.pop(0)}
    return found


def test_one_role_alone_and_an_invalid_principal(tmp_path: Path) -> None:
    line = CommandLine(tmp_path, {})
    (row,) = line.run("topics", "acls", "agent", "--agent", "User:CN=planner", "-o", "jsonl").rows
    assert (row["principal"], row["operations"]) == ("User:CN=planner", ["Write", "Describe"])
    wrong = line.run("topics", "acls", "--worker", "me")
    assert wrong.code == 2
    assert "as User:me" in wrong.error


def test_the_manifests_of_users_grant_the_same() -> None:
    granted = {
        (user["metadata"]["name"], kind, resource["name"], resource["patternType"], *acl["operations"])
        for user in yaml.safe_load_all(USERS.read_text())
        for acl in user["spec"]["authorization"]["acls"]
        for resource in [acl["resource"]]
        for kind in [{"transactionalId": "transactional-id"}.get(resource["type"], resource["type"])]
    }
    # The nightly job is an agent that waits for results: a subscriber without a group.
    job = {one for one in granted if one[0] == "waypost-expire"}
    granted -= job
    assert {one[1:] for one in job} == {
        one[1:] for one in granted if one[0] in ("waypost-agent", "waypost-subscriber") and one[1] == "topic"
    }
    roles = {name.removeprefix("waypost-") for name, *_ in granted}
    patterns = {"prefixed": "prefix", "literal": "literal"}
    assert granted == {
        (f"waypost-{acl.role}", acl.resource, acl.name, patterns[acl.pattern], *acl.operations)
        for acl in least_acls(Topics(), "waypost", "waypost-sub")
        if acl.role in roles
    }
    assert roles == {"agent", "subscriber", "worker", "console"}
