"""A token for OAUTHBEARER from a file that somebody else renews, as Kubernetes and token agents do."""

import asyncio
import base64
import binascii
import json
import os
import time
from datetime import UTC, datetime

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import SaslAuthenticationFailed

from waypost.arguments import checked_path
from waypost.errors import AccessDeniedError


class _TokenFileError(AccessDeniedError, SaslAuthenticationFailed):
    """A token that can't be used; aiokafka takes it for a failed login, as it should."""

    __str__ = Exception.__str__  # aiokafka's own puts the name of the class before the text


class TokenFile(AbstractTokenProvider):
    """Token provider for OAUTHBEARER: ``kafka_options={"sasl_oauth_token_provider": TokenFile(path), …}``.

    The file is read for every connection.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = checked_path("the token file", path)

    def __repr__(self) -> str:
        return f"TokenFile({str(self._path)!r})"

    async def token(self) -> str:
        """Return the token.

        Raises:
            AccessDeniedError: The file can't be read, is empty, or holds an expired JWT.
        """
        try:
            token = (await asyncio.to_thread(self._path.read_text)).strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise _TokenFileError(f"the token file {self._path} can't be read: {why}") from None
        if not token:
            raise _TokenFileError(f"the token file {self._path} is empty")
        expires = _expiry(token)
        if expires is not None and expires <= time.time():
            when = datetime.fromtimestamp(expires, UTC).isoformat(timespec="seconds")
            raise _TokenFileError(f"the token in {self._path} expired at {when}: renew the file")
        return token


def _expiry(token: str) -> float | None:
    """Return when a JWT expires, in seconds since 1970; None if it is not a JWT or does not say."""
    try:
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        found = claims.get("exp")
    except (IndexError, AttributeError, ValueError, binascii.Error):
        return None
    return float(found) if isinstance(found, int | float) else None
