"""Measure what each extra installs: `make measure-extras` writes docs/measured/extras.json.

With names of extras, only these are measured again.

Each extra goes into a fresh environment below a temporary directory, with the versions in requirements.lock. Sizes are
those of all files in its site-packages, including compiled modules and Waypost itself, without pip. Packages are those
that come with Waypost.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
KEPT: Final = ROOT / "docs" / "measured" / "extras.json"
#: Not for users: it is everything together.
LEFT_OUT: Final = ("test",)
_PIN: Final = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)\s*(;[^\\]*)?", re.MULTILINE)


def extras() -> list[str]:
    """Return the extras that users install, after the bare library, whose name is empty."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return ["", *(name for name in project["optional-dependencies"] if name not in LEFT_OUT)]


def constraints() -> str:
    """Return the versions of the lock file, without hashes."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    return "".join(f"{name}=={version} {marker}\n" for name, version, marker in _PIN.findall(lock))


def pip(*arguments: str) -> None:
    """Run pip; it must succeed."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True)  # noqa: S603 - nothing of it comes from elsewhere


def measure(extra: str, wheel: Path, directory: Path) -> dict[str, int]:
    """Install one extra, and count its packages and megabytes."""
    place = directory / (extra or "bare")
    venv.create(place, with_pip=False, symlinks=True)
    wanted = f"{wheel}[{extra}]" if extra else str(wheel)
    pip("--python", str(place), "install", "--constraint", str(directory / "constraints.txt"), wanted)
    (packages,) = place.glob("lib/python*/site-packages")
    files = [path for path in packages.rglob("*") if path.is_file() and not path.is_symlink()]
    return {
        "packages": len(list(packages.glob("*.dist-info"))) - 1,
        "mb": round(sum(path.stat().st_size for path in files) / 1e6),
    }


def main() -> int:
    """Measure every extra, or only those that are named, and write the file."""
    kept = json.loads(KEPT.read_text(encoding="utf-8"))["extras"] if KEPT.exists() else {}
    with tempfile.TemporaryDirectory(prefix="waypost-extras-") as name:
        directory = Path(name)
        (directory / "constraints.txt").write_text(constraints(), encoding="utf-8")
        pip("wheel", "--no-deps", "--wheel-dir", name, str(ROOT))
        (wheel,) = directory.glob("*.whl")
        for extra in sys.argv[1:] or extras():
            kept[extra] = measure(extra, wheel, directory)
            print(f"{extra or '(none)'}: {kept[extra]}", flush=True)  # noqa: T201
            shutil.rmtree(directory / (extra or "bare"))
    found = {
        "python": ".".join(map(str, sys.version_info[:2])),
        "extras": {extra: kept[extra] for extra in extras() if extra in kept},
    }
    KEPT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
