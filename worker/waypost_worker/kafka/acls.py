"""The least that each kind of client must be allowed at the brokers, as data; and as lines for ``kafka-acls``.

Contacts no broker. A test compares each of these with a real one: a client with these ACLs can do its work, and nothing
more.
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from waypost.wire.topics import Topics

Role: TypeAlias = Literal["agent", "subscriber", "worker", "console", "operator"]
ROLES: Final[dict[Role, str]] = {
    "agent": "writes commands; one that waits for results is a subscriber too",
    "subscriber": "reads results, in groups whose names begin as said",
    "worker": "reads both topics, writes results, claims the epochs that fence",
    "console": "writes commands, follows results, reads the log for proofs, asks who the workers are",
    "operator": "makes and checks topics, publishes, replays: users of the command line",
}


@dataclass(frozen=True, slots=True)
class Acl:
    """Operations that a role needs on a resource, named whole (``literal``) or by how it begins (``prefixed``)."""

    role: Role
    resource: Literal["topic", "group", "transactional-id", "cluster"]
    name: str
    pattern: Literal["literal", "prefixed"]
    operations: tuple[str, ...]


def least_acls(topics: Topics, worker_group: str, subscriber_groups: str) -> list[Acl]:
    """Return the permissions that each role needs, and no more. ``subscriber_groups`` is the prefix of the subscribers'
    groups.

    Kafka lets every client with write access to a topic write idempotently, so that needs no ACL.
    """
    own = f"{topics.prefix}."
    epochs = ("Write", "Describe")
    return [
        Acl("agent", "topic", topics.commands, "literal", ("Write", "Describe")),
        Acl("subscriber", "topic", topics.results, "literal", ("Read", "Describe")),
        Acl("subscriber", "group", subscriber_groups, "prefixed", ("Read", "Describe")),
        # It checks the topics' settings when it starts.
        Acl("worker", "topic", topics.commands, "literal", ("Read", "Describe", "DescribeConfigs")),
        Acl("worker", "topic", topics.results, "literal", ("Read", "Write", "Describe", "DescribeConfigs")),
        Acl("worker", "group", worker_group, "literal", ("Read", "Describe")),
        Acl("worker", "transactional-id", own, "prefixed", epochs),
        # Its page of health checks the topics' settings, too.
        Acl("console", "topic", topics.commands, "literal", ("Read", "Write", "Describe", "DescribeConfigs")),
        Acl("console", "topic", topics.results, "literal", ("Read", "Describe", "DescribeConfigs")),
        Acl("console", "group", worker_group, "literal", ("Describe",)),
        Acl(
            "operator",
            "topic",
            own,
            "prefixed",
            ("Create", "Delete", "Read", "Write", "Describe", "DescribeConfigs"),
        ),
        Acl("operator", "group", worker_group, "literal", ("Describe",)),
        Acl("operator", "transactional-id", own, "prefixed", epochs),
        Acl("operator", "cluster", "kafka-cluster", "literal", ("DescribeConfigs",)),
    ]


def command_lines(acls: list[Acl], principals: dict[Role, str], bootstrap_servers: str) -> Iterator[str]:
    """A line of shell for each ACL, after a comment for each role; to be run by an administrator of the cluster."""
    last = None
    for acl in acls:
        if acl.role != last:
            yield f"# {acl.role}: {ROLES[acl.role]}"
            last = acl.role
        words = ["kafka-acls.sh", "--bootstrap-server", bootstrap_servers, "--add"]
        words += ["--allow-principal", principals[acl.role]]
        for operation in acl.operations:
            words += ["--operation", operation]
        words += ["--cluster"] if acl.resource == "cluster" else [f"--{acl.resource}", acl.name]
        if acl.pattern == "prefixed":
            words += ["--resource-pattern-type", "prefixed"]
        yield shlex.join(words)
