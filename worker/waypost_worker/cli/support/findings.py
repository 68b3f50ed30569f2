"""Print findings, and derive the exit code."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from waypost_worker.cli.support.output import DONE, FAILED, Format, note, show_rows

if TYPE_CHECKING:
    from waypost_worker.findings import Finding


def show_findings(findings: "Sequence[Finding]", output: Format) -> int:
    """Print them; exit code 1 if one is an error."""
    from waypost_worker.findings import verdict

    if output == "table":
        rows = [
            {
                "": found.level,
                "subject": found.subject,
                "finding": f"{found.message}\n-> {found.fix}" if found.fix else found.message,
            }
            for found in findings
        ]
        show_rows(rows, output, ("", "subject", "finding"), wrap=("finding",))
        note(verdict(findings))
    else:
        show_rows([_fields(found) for found in findings], output, ())
    return FAILED if any(found.level == "error" for found in findings) else DONE


def _fields(found: "Finding") -> dict[str, str]:
    return {
        "level": found.level,
        "subject": found.subject,
        "message": found.message,
        "fix": found.fix,
        "mend": found.fix,  # its name in 0.1, deprecated
    }
