"""No function takes more than seven arguments: what belongs together travels as one object."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
MOST = 7
FLAGS = "cyclopts makes a flag of each argument"
# Only what a person types or a user calls by keyword may take more.
EXEMPT = {
    "schemas/waypost/adapters/backend.py: Backend.__init__": "public: each option is a keyword of its own",
    "schemas/waypost/reader/client.py: Reader.__init__": "public: each option is a keyword of its own",
    "schemas/waypost/subscriber/client.py: Subscriber.__init__": "public: each option is a keyword of its own",
    "worker/waypost_worker/cli/dev.py: dev": FLAGS,
    "worker/waypost_worker/cli/erase/app.py: erase": FLAGS,
    "worker/waypost_worker/cli/expire/app.py: expire": FLAGS,
    "worker/waypost_worker/cli/publish.py: publish": FLAGS,
    "worker/waypost_worker/cli/recovery/replay.py: replay": FLAGS,
    "worker/waypost_worker/cli/recovery/verify.py: verify": FLAGS,
    "worker/waypost_worker/cli/rejected/purge.py: purge": FLAGS,
    "worker/waypost_worker/cli/rejected/retry.py: retry": FLAGS,
    "worker/waypost_worker/cli/session/copy.py: copy": FLAGS,
}


def functions(node: ast.AST, owner: str = "") -> Iterator[tuple[str, int]]:
    """Each function with its class, and how many arguments a caller may pass."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            given = child.args
            names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            bound = bool(owner) and names[:1] in (["self"], ["cls"])
            yield owner + child.name, len(names) - bound
            yield from functions(child)
        else:
            yield from functions(child, f"{child.name}." if isinstance(child, ast.ClassDef) else owner)


def counted() -> dict[str, int]:
    found: dict[str, int] = {}
    for package in ("schemas", "worker"):
        for file in (ROOT / package).rglob("*.py"):
            for name, count in functions(ast.parse(file.read_text(encoding="utf-8"))):
                where = f"{file.relative_to(ROOT)}: {name}"
                found[where] = max(count, found.get(where, 0))
    return found


def test_the_count_leaves_out_self_and_sees_every_kind_of_argument() -> None:
    source = "class A:\n def f(self, a, /, b, *c, d=1, **e): ...\n  \ndef g(self): ...\n"
    assert dict(functions(ast.parse(source))) == {"A.f": 3, "g": 1}


def test_no_function_takes_more_than_seven_arguments() -> None:
    found = counted()
    assert len(found) > 1000
    assert {name: count for name, count in found.items() if count > MOST and name not in EXEMPT} == {}


def test_each_exemption_is_still_needed() -> None:
    found = counted()
    assert [name for name in EXEMPT if found.get(name, 0) <= MOST] == []
