"""docs/model.md names steps and code that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/model.md").read_text()
MODEL = "".join(path.read_text() for path in Path(__file__).parent.glob("*.py"))
# Rows that map a step of the model to the code.
ROWS = re.findall(r"^\| (.*\S) +\| (.*`.*\S) +\|$", PAGE, re.MULTILINE)


def test_every_step_of_groups_and_of_one_partition_has_a_row() -> None:
    assert len(ROWS) >= 17


@pytest.mark.parametrize(("step", "code"), ROWS)
def test_a_step_stands_for_code_that_exists(step: str, code: str) -> None:
    for name in re.findall(r"`(\w+)`", step):
        assert f"def {name}(" in MODEL
    files = [ROOT / "worker/waypost_worker" / path for path in re.findall(r"`([\w/]+\.(?:py|sql))`", code)]
    worker = "".join(path.read_text() for path in files or (ROOT / "worker/waypost_worker").rglob("*.py"))
    for name in re.findall(r"`([A-Za-z_]\w*(?:\.\w+)*)(?:\(\))?`", code):
        if not name.endswith((".py", ".sql")):
            assert name.rpartition(".")[2] in worker
