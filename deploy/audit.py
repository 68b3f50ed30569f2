"""``make audit DATABASE=path``: which pinned packages have known vulnerabilities, without asking anybody.

DATABASE is a directory or a zip file with advisories for PyPI in the OSV format, one JSON file each, as the OSV project
exports them. (Tools that audit packages ask a service over the network for each of them; a database at hand says the
same anywhere, and how old it is.) Looked at: every lock of the repository. Exit codes: 0 none found, 1 some found, 2
the database or a lock can't be read.
"""

import json
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ROOT: Final = Path(__file__).parent.parent
LOCKS: Final = (
    "requirements.lock",
    "requirements-demo.lock",
    "deploy/worker.lock",
    "deploy/build.lock",
    "deploy/tools.lock",
    "deploy/docs.lock",
    "tests/tools/bench/peers/requirements.lock",
)
_REQUIREMENT: Final = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", re.M)


class UnreadableError(Exception):
    """The database is not what it should be."""


@dataclass(frozen=True, slots=True)
class Found:
    """A pinned version that an advisory is about."""

    package: str
    version: str
    advisory: str
    mended_in: str
    summary: str


def locked(text: str) -> set[tuple[str, str]]:
    """Names, in their canonical form, and versions of a lock. ValueError if it pins nothing."""
    found = {(str(canonicalize_name(name)), version) for name, version in _REQUIREMENT.findall(text)}
    if not found:
        raise ValueError("it pins no package")
    return found


def advisories(database: Path) -> Iterator[dict[str, Any]]:
    """Return every advisory that is in effect. Raise UnreadableError if this is not a database, or a file can't be
    read.
    """
    if database.is_dir():
        files = ((str(path), path.read_bytes()) for path in sorted(database.rglob("*.json")))
    elif zipfile.is_zipfile(database):
        archive = zipfile.ZipFile(database)
        files = ((name, archive.read(name)) for name in archive.namelist() if name.endswith(".json"))
    else:
        raise UnreadableError(f"{database} is neither a directory nor a zip file")
    for name, content in files:
        try:
            advisory = json.loads(content)
        except ValueError as error:
            raise UnreadableError(f"{name} is not JSON: {error}") from None
        if not isinstance(advisory, dict) or "id" not in advisory:
            raise UnreadableError(f"{name} is not an advisory in the OSV format: it has no id")
        if "withdrawn" not in advisory:
            yield advisory


def affects(affected: Mapping[str, Any], version: Version) -> bool:
    """Return whether one entry of an advisory's ``affected`` covers this version."""
    if any(_version(listed) == version for listed in affected.get("versions", ())):
        return True
    return any(
        _within(one.get("events", ()), version)
        for one in affected.get("ranges", ())
        if one.get("type") == "ECOSYSTEM"
    )


def _within(events: Sequence[Mapping[str, str]], version: Version) -> bool:
    """The events of a range in order of their versions: the last one at or before ``version`` decides."""
    inside = False
    for event in sorted(events, key=lambda event: _version(next(iter(event.values()))) or Version("0")):
        ((kind, text),) = event.items()
        at = Version("0.dev0") if text == "0" else _version(text)
        if at is None:
            continue
        if kind == "introduced" and version >= at:
            inside = True
        elif (kind == "fixed" and version >= at) or (kind == "last_affected" and version > at):
            inside = False
    return inside


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def audit(packages: set[tuple[str, str]], known: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Found]:
    """Return what the advisories, by package, report about these."""
    found = []
    for name, text in sorted(packages):
        version = _version(text)
        for advisory in known.get(name, ()) if version is not None else ():
            entries = [one for one in advisory["affected"] if _name(one) == name and affects(one, version)]
            if entries:
                fixes = {
                    event["fixed"]
                    for one in entries
                    for within in one.get("ranges", ())
                    if within.get("type") == "ECOSYSTEM"
                    for event in within.get("events", ())
                    if "fixed" in event
                }
                ids = ", ".join([advisory["id"], *advisory.get("aliases", ())])
                summary = advisory.get("summary") or advisory.get("details", "").partition("\n")[0]
                found.append(
                    Found(name, text, ids, " or ".join(sorted(fixes)) or "no version", summary[:100])
                )
    return found


def _name(affected: Mapping[str, Any]) -> str | None:
    package = affected.get("package", {})
    return str(canonicalize_name(package["name"])) if package.get("ecosystem") == "PyPI" else None


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Audit every lock; tell."""
    if len(arguments) != 1 or not arguments[0]:
        print("audit: which database? say make audit DATABASE=path of OSV advisories", file=sys.stderr)  # noqa: T201
        return 2
    known: dict[str, list[dict[str, Any]]] = {}
    newest = ""
    try:
        for advisory in advisories(Path(arguments[0])):
            newest = max(newest, advisory.get("modified", ""))
            for name in {_name(one) for one in advisory.get("affected", ())} - {None}:
                known.setdefault(str(name), []).append(advisory)
        if not known:
            raise UnreadableError(f"{arguments[0]} holds no advisory for PyPI")
        locks = {name: locked((root / name).read_text(encoding="utf-8")) for name in LOCKS}
    except (UnreadableError, OSError, ValueError) as error:
        print(f"audit: {error}", file=sys.stderr)  # noqa: T201
        return 2
    print(f"advisories for {len(known)} packages, the newest of {newest or 'unknown date'}")  # noqa: T201
    vulnerable = False
    for lock, packages in locks.items():
        found = audit(packages, known)
        vulnerable = vulnerable or bool(found)
        print(f"{lock}: {len(packages)} packages, {len(found)} findings")  # noqa: T201
        for one in found:
            print(f"  {one.package} {one.version}: {one.advisory}, fixed in {one.mended_in}: {one.summary}")  # noqa: T201
    return int(vulnerable)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
