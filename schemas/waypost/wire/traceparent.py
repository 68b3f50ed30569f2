"""The ``traceparent`` header of W3C Trace Context (https://www.w3.org/TR/trace-context/), as far as it is passed on.

Waypost copies it from a command to its result and takes no part in the trace. A header that is not valid is ignored,
as the specification demands: it never makes a command invalid. ``tracestate`` is neither read nor passed on. Pure.
"""

import re
from typing import Final

LENGTH: Final = 55
# Version, trace id, parent id and flags in lowercase hex; the version ff is invalid, and so are ids of zeros.
_VALID: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]([0-9a-f])(?=-|\Z)"
)


def valid_traceparent(header: bytes) -> bytes | None:
    """Return the header in version 00, in exactly 55 bytes; None if it is not valid.

    The fields of a later version are read as section 3.2.4 says, and passed on in the version that is known here:
    without what may follow them, and of the flags only ``sampled``, the one that version 00 defines.
    """
    found = _VALID.match(header)
    if found is None:
        return None
    if header.startswith(b"00"):
        return header if len(header) == LENGTH else None
    sampled = int(found[1], 16) & 1
    return b"00%b0%d" % (header[2 : LENGTH - 2], sampled)
