"""What a check found: the one form in which checks of Kafka, of Postgres and of deployments report."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was checked. ``mend`` says what to do where it is not ``ok``.

    With ``unsafe``, no worker may run until it is mended: commands could be lost.
    """

    level: Literal["ok", "warning", "error"]
    subject: str
    message: str
    mend: str = ""
    unsafe: bool = False
