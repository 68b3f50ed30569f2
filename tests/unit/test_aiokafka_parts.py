"""What Waypost uses of aiokafka, so that a new release can be judged at a glance.

Only names without an underscore. If a release lacks one, the test that imports it names it; the page says what to do:
docs/decisions/0040-what-is-used-of-aiokafka.md.
"""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka.cluster import ClusterMetadata
from aiokafka.conn import AIOKafkaConnection

import waypost
import waypost_worker

SOURCES = [
    path
    for package in (waypost, waypost_worker)
    for path in sorted(Path(inspect.getfile(package)).parent.rglob("*.py"))
    if re.search(r"^\s*(from|import) aiokafka", path.read_text(), re.MULTILINE)
]
PAGE = Path(__file__).parents[2] / "docs/decisions/0040-what-is-used-of-aiokafka.md"
# Of a named tuple.
HARMLESS = {"_replace", "_make", "_asdict"}


def imported() -> Iterator[tuple[str, str]]:
    """Yield modules of aiokafka and the names that are imported from them."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "aiokafka":
                yield from ((node.module or "", alias.name) for alias in node.names)
            elif isinstance(node, ast.Import):
                yield from ((alias.name, "") for alias in node.names if alias.name.startswith("aiokafka"))


USED = sorted(set(imported()))


def is_private(name: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


def test_there_is_something_to_look_at() -> None:
    assert len(SOURCES) > 20
    assert ("aiokafka.conn", "AIOKafkaConnection") in USED


@pytest.mark.parametrize(("module", "name"), USED)
def test_a_name_that_is_imported_is_public_and_there(module: str, name: str) -> None:
    assert not is_private(f"{module}.{name}"), (
        f"{module}.{name} is private: find another way, see {PAGE.name}"
    )
    found = importlib.import_module(module)
    if name and not hasattr(found, name):
        importlib.import_module(f"{module}.{name}")  # raises an error that names it


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_private_attribute_of_another_object_is_used(path: Path) -> None:
    found = {
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and is_private(node.attr)
        and node.attr not in HARMLESS
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    }
    assert not found, f"{path.name} uses private attributes: {found}"


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (AIOKafkaConnection, ("connect", "connected", "send", "close")),
        (
            ClusterMetadata,
            (
                "add_listener",
                "broker_metadata",
                "brokers",
                "leader_for_partition",
                "partitions_for_topic",
                "remove_listener",
                "update_metadata",
            ),
        ),
    ],
)
def test_the_methods_that_connections_stand_on_are_there(owner: type, names: tuple[str, ...]) -> None:
    missing = [name for name in names if not callable(getattr(owner, name, None))]
    assert not missing, f"{owner.__name__} has no {missing}: see {PAGE.name}"


def test_a_connection_takes_what_it_is_given() -> None:
    missing = {
        "client_id", "request_timeout_ms", "ssl_context", "security_protocol", "max_idle_ms", "on_close",
        "sasl_mechanism", "sasl_plain_username", "sasl_plain_password", "sasl_oauth_token_provider",
    } - set(inspect.signature(AIOKafkaConnection).parameters)  # fmt: skip
    assert not missing, f"AIOKafkaConnection does not take {missing}: see {PAGE.name}"
