"""The named points between two steps of the protocol at which a worker of ``tests.faults.worker`` can be stopped.

The numbers are those of partition/acquire.py; the steps of a batch are numbered here in their order.
"""

from typing import Final

ACQUIRE: Final = (
    "acquire-0-begun",
    "acquire-1-postgres-fenced",
    "acquire-1-log-checked",
    "acquire-2-epoch-claimed",
    "acquire-2-fence-appended",
    "acquire-2-claim-recorded",
    "acquire-3-tail-read",
    "acquire-3-position-saved",
    "acquire-5-before-reemission",
    "acquire-5-reemitted",
    "acquire-5-reemission-confirmed",
    "acquire-6-positioned",
)
BATCH: Final = (
    "batch-1-fetched",
    "batch-2-loaded",
    "batch-3-decided",
    "batch-4-group-committed",
    "batch-4-committed",
    "batch-5-before-append",
    "batch-6-appended",
)
RELEASE: Final = ("release-1-emitted", "release-2-position-saved")
POINTS: Final = (*ACQUIRE, *BATCH, *RELEASE)
