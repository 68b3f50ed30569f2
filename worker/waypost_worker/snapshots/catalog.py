"""The snapshots of a place: which there are, whether they are whole, and which may go."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from waypost_worker.snapshots.files import read
from waypost_worker.snapshots.manifest import FILE_NAME, MANIFEST_BYTES, NO_KEY, Manifest, Signing
from waypost_worker.snapshots.storage import SnapshotError, Storage

LATEST: Final = "latest"
# Other names belong to somebody else, and are never touched.
_NAME: Final = re.compile(r"\d{8}T\d{9}Z-[0-9a-f]{6}")


@dataclass(frozen=True, slots=True)
class Listed:
    """A snapshot by its manifest. ``incomplete``: it has none; ``unreadable``: ``problem`` says why."""

    name: str
    state: Literal["complete", "incomplete", "unreadable"]
    manifest: Manifest | None = None
    problem: str = ""


async def listed(storage: Storage, signing: Signing = NO_KEY) -> list[Listed]:
    """All that lie there, oldest first."""
    found = []
    for name in await storage.names():
        if _NAME.fullmatch(name) is None:
            continue
        try:
            manifest = await _manifest(storage, name, signing)
        except SnapshotError as error:
            found.append(Listed(name, "unreadable", problem=str(error)))
        else:
            found.append(Listed(name, "incomplete" if manifest is None else "complete", manifest))
    return found


async def newest(storage: Storage, signing: Signing = NO_KEY) -> Manifest | None:
    """The newest complete one, or None. SnapshotError if a newer one can't be read, rather than passing it over."""
    for each in reversed(await listed(storage, signing)):
        if each.problem:
            raise SnapshotError(each.problem)
        if each.manifest is not None:
            return each.manifest
    return None


async def chosen(storage: Storage, name: str, signing: Signing = NO_KEY) -> Manifest:
    """The manifest of a snapshot, or of the newest complete one for ``latest``. SnapshotError if there is none."""
    if name == LATEST:
        manifest = await newest(storage, signing)
        if manifest is None:
            raise SnapshotError(f"{storage.where} holds no complete snapshot")
        return manifest
    if _NAME.fullmatch(name) is None or name not in await storage.names():
        raise SnapshotError(
            f"{storage.where} holds no snapshot {name!r}; 'waypost snapshot list' shows which"
        )
    manifest = await _manifest(storage, name, signing)
    if manifest is None:
        raise SnapshotError(
            f"the snapshot {name!r} has no manifest, which is written last: it was never completed. Use another one"
        )
    return manifest


async def check_files(storage: Storage, manifest: Manifest, progress: Callable[[int, int], None]) -> None:
    """Read everything. SnapshotError at the first file that is missing or not as it was written."""
    files = [file for part in manifest.parts for file in part.files]
    for done, file in enumerate(files, 1):
        await read(storage, manifest.name, file)
        progress(done, len(files))


def superfluous(found: Sequence[Listed], keep: int) -> list[Listed]:
    """Return what can be removed if the newest ``keep`` complete ones stay: older ones, and incomplete ones that were
    begun before the newest. Unreadable ones stay, because another version may be able to read them.
    """
    complete = [each for each in found if each.state == "complete"]
    kept = {each.name for each in complete[max(len(complete) - keep, 0) :]}
    last = complete[-1].name if complete else ""
    return [
        each
        for each in found
        if (each.state == "complete" and each.name not in kept)
        or (each.state == "incomplete" and each.name < last)
    ]


async def _manifest(storage: Storage, name: str, signing: Signing) -> Manifest | None:
    text = await storage.get(f"{name}/{FILE_NAME}", MANIFEST_BYTES)
    return None if text is None else Manifest.from_json(text, name, signing)
