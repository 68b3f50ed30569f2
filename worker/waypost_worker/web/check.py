"""``python -m waypost_worker.web.check /livez``: the probe of this machine's worker, for a container's health check.

Exit code 0 if it answers that all is well. Needs nothing but the standard library.
"""

import os
import sys
import urllib.error
import urllib.request
from typing import Final

_SECONDS: Final = 2.0
_MOST: Final = 65_536  # bytes of an answer


def check(path: str, port: str) -> tuple[bool, str]:
    """Return whether the probe succeeded, and its answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=_SECONDS) as answer:
            return True, answer.read(_MOST).decode(errors="replace")
    except urllib.error.HTTPError as refused:
        return False, refused.read(_MOST).decode(errors="replace")
    except OSError as error:
        return False, f"port {port} does not answer: {error}"


def main() -> None:
    """Check, and exit with the answer."""
    path = sys.argv[1] if len(sys.argv) > 1 else "/livez"
    port = os.environ.get("WAYPOST_HTTP_PORT")
    if not port:
        sys.stderr.write("WAYPOST_HTTP_PORT is not set: there are no probes\n")
        raise SystemExit(2)
    well, said = check(path, port)
    # Another program may listen there and have written it.
    sys.stderr.write("".join(each if each.isprintable() else ascii(each)[1:-1] for each in said) + "\n")
    raise SystemExit(0 if well else 1)


if __name__ == "__main__":
    main()
