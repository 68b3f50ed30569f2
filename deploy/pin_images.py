"""``make pin-images``: renews the digests of base images wherever they are named.

Each ``name:tag@sha256:…`` is looked up by name and tag with the first of these tools that is on PATH: crane, skopeo,
docker (buildx). All are asked before anything is written, so that a failure changes nothing. Tags stay: a newer one is
written by hand, and this then finds its digest. ``--check`` writes nothing. Exit codes: 0 all are as they were or
renewed, 1 out of date with ``--check``, 2 it could not be found out.
"""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
FILES: Final = (
    "deploy/Containerfile",
    "deploy/compose.yaml",
    "deploy/helm/waypost/values.yaml",
    "deploy/kubernetes/components/servers/kafka.yaml",
    "deploy/kubernetes/components/servers/postgres.yaml",
)
TOOLS: Final[Mapping[str, tuple[str, ...]]] = {
    "crane": ("digest", "IMAGE"),
    "skopeo": ("inspect", "--no-tags", "--format", "{{.Digest}}", "docker://IMAGE"),
    "docker": ("buildx", "imagetools", "inspect", "IMAGE", "--format", "{{.Manifest.Digest}}"),
}
_PINNED: Final = re.compile(r"(?P<image>[a-z0-9][\w./-]*:[\w.-]+)@(?P<digest>sha256:[0-9a-f]{64})")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_SECONDS: Final = 120


class UnknownError(Exception):
    """A digest could not be found out."""


def pinned(root: Path) -> dict[str, str]:
    """Return the current digests, by name and tag."""
    texts = [(root / name).read_text(encoding="utf-8") for name in FILES]
    return {found["image"]: found["digest"] for text in texts for found in _PINNED.finditer(text)}


def look_up(image: str) -> str:
    """Return the registry's current digest of this name and tag. Raise UnknownError if it can't be reached."""
    tool = next((path for name in TOOLS if (path := shutil.which(name))), None)
    if tool is None:
        raise UnknownError(f"none of {', '.join(TOOLS)} is on PATH: install one; it needs the network")
    command = [tool, *(word.replace("IMAGE", image) for word in TOOLS[Path(tool).name])]
    try:
        done = subprocess.run(  # noqa: S603 - the tool was found on PATH, images are ours
            command, check=False, capture_output=True, text=True, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise UnknownError(f"{image}: {Path(tool).name} did not answer within {_SECONDS} s") from None
    digest = done.stdout.strip()
    if done.returncode or not _DIGEST.fullmatch(digest):
        said = " ".join((done.stderr or done.stdout).split()) or "nothing"
        raise UnknownError(f"{image}: {Path(tool).name} ended with {done.returncode} and said {said}")
    return digest


def renew(root: Path, digests: Mapping[str, str]) -> None:
    """Write the digests of these images into all files."""
    for name in FILES:
        text = (root / name).read_text(encoding="utf-8")
        new = _PINNED.sub(lambda found: f"{found['image']}@{digests[found['image']]}", text)
        if new != text:
            (root / name).write_text(new, encoding="utf-8")


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Look all up, tell, write."""
    parser = argparse.ArgumentParser(prog="pin_images.py", description="Renew the digests of base images.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 if one is out of date"
    )
    check = parser.parse_args(arguments).check
    before = pinned(root)
    try:
        now = {image: look_up(image) for image in before}
    except UnknownError as error:
        print(f"pin-images: {error}. Nothing was changed.", file=sys.stderr)  # noqa: T201
        return 2
    for image, digest in now.items():
        state = "as before" if digest == before[image] else f"was {before[image]}"
        print(f"{image}@{digest}  ({state})")  # noqa: T201
    if check:
        return int(now != before)
    renew(root, now)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
