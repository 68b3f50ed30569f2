"""The shape of encrypted data, by which it is recognized without a key. Pure; encrypts and decrypts nothing.

Data is encrypted if it is a JSON object whose only member is :data:`MARK`, an object with the members of
:class:`EncryptedData` and a version and an algorithm that are known here. Whether it authenticates is for those to say
who have the key.

A worker decides by this shape what an encrypted session accepts, so a replay must find the same: what counts as
encrypted today always does.
"""

import re
from typing import Any, Final, NamedTuple

import orjson

from waypost.model.limits import MAX_COMMAND_ID, MAX_SESSION_ID, text_problem

MARK: Final = "waypost.encrypted"
VERSION: Final = 1
ALGORITHM: Final = "A256GCM"
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
#: How the data came: in a create, or in an import, whose checkpoints do not carry the id of its command.
CREATED: Final = "create"
IMPORTED: Final = "import"
# A mark that is written with an escape, or that follows another member, does not count.
_MARKED: Final = re.compile(rb'\{[ \t\n\r]*+"waypost\.encrypted"[ \t\n\r]*+:')
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]++={0,2}")
_BASE64_DIGITS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_ASCII_SESSION: Final = rb'"[ !#-\[\]-~]{1,%d}+"' % MAX_SESSION_ID
_BEGINNING: Final = b'{"waypost.encrypted":{"v":1,"alg":"A256GCM","key":"'
_AFTER_BEGINNING: Final = re.compile(
    rb'[A-Za-z0-9_-]{1,64}+","session":'
    + _ASCII_SESSION
    + rb'(?:,"origin":'
    + _ASCII_SESSION
    + rb')?,"by":"(?:create|import)","command":"[ !#-\[\]-~]{1,%d}+","nonce":"[A-Za-z0-9+/]{16}","ciphertext":"'
    % MAX_COMMAND_ID
)
_END: Final = b'"}}'
# Ends of data after the base64 digits of its ciphertext, and how much of each is padding.
_ENDS: Final = {_END: 0, b"=" + _END: 1, b"==" + _END: 2}
_NONCE_DIGITS: Final = 4 * NONCE_BYTES // 3
_FEWEST_BYTES: Final = TAG_BYTES + len(b"{}")
_LAST: Final = ("by", "command", "nonce", "ciphertext")
_MEMBERS: Final = {"v", "alg", "key", "session", *_LAST}
# Nine members, and names that may consist of commas. Data with more commas is not parsed, however large it is.
_MOST_COMMAS: Final = 8 + 2 * MAX_SESSION_ID + MAX_COMMAND_ID


class EncryptedData(NamedTuple):
    """Members of encrypted data. ``nonce`` and ``ciphertext`` are base64, and the ciphertext ends with its tag.

    ``key`` is the id of the key, which is that of the session ``origin``. ``session`` is where the data may be read:
    the origin, or a session to which somebody with the key copied it. ``by`` and ``command`` are the kind and the id of
    the command that brought it.
    """

    key: str
    session: str
    origin: str
    by: str
    command: str
    nonce: str
    ciphertext: str


def is_encrypted(data: bytes) -> bool:
    """Tell whether a checkpoint's data, which is valid JSON, is encrypted."""
    return is_as_written(data) or parse_encrypted(data) is not None


def is_as_written(data: bytes) -> bool:
    """Tell whether data is encrypted and written as a publisher writes it, with names in ASCII.

    If so, the data is valid JSON of two levels, which nobody needs to check again. A worker asks for every create, and
    parsing takes several times as long.
    """
    if not data.startswith(_BEGINNING):
        return False
    matched = _AFTER_BEGINNING.match(data, len(_BEGINNING))
    if matched is None:
        return False
    ciphertext = data[matched.end() :]
    rest = ciphertext.translate(None, _BASE64_DIGITS)
    padding = _ENDS.get(rest)
    size = len(ciphertext) - len(_END)
    return (
        padding is not None
        and ciphertext.endswith(rest)
        and size % 4 == 0
        and 3 * size // 4 - padding >= _FEWEST_BYTES
    )


def is_marked(data: bytes) -> bool:
    """Tell whether data claims to be encrypted: it begins so, whatever follows."""
    return _MARKED.match(data) is not None


def parse_encrypted(data: bytes) -> EncryptedData | None:
    """Return the members of encrypted data, or None if it is anything else."""
    if not is_marked(data) or data.count(b",") > _MOST_COMMAS:
        return None
    try:
        outer = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(outer, dict) or outer.keys() != {MARK} or not isinstance(inner := outer[MARK], dict):
        return None
    if inner.keys() - {"origin"} != _MEMBERS or not _is_known(inner["v"], inner["alg"]):
        return None
    origin = inner.get("origin", inner["session"])
    members = (inner["key"], inner["session"], origin, *(inner[name] for name in _LAST))
    if not all(isinstance(each, str) for each in members) or not _fits(*members):
        return None
    return EncryptedData(*members)


def _is_known(version: Any, algorithm: Any) -> bool:
    return type(version) is int and version == VERSION and algorithm == ALGORITHM


def _fits(key: str, session: str, origin: str, by: str, command: str, nonce: str, ciphertext: str) -> bool:
    return (
        _KEY_ID.fullmatch(key) is not None
        and text_problem(session, MAX_SESSION_ID) is None
        and text_problem(origin, MAX_SESSION_ID) is None
        and by in (CREATED, IMPORTED)
        and text_problem(command, MAX_COMMAND_ID) is None
        and len(nonce) == _NONCE_DIGITS
        and _BASE64.fullmatch(nonce) is not None
        and not nonce.endswith("=")
        and len(ciphertext) % 4 == 0
        and _BASE64.fullmatch(ciphertext) is not None
        and 3 * len(ciphertext) // 4 - ciphertext[-2:].count("=") >= _FEWEST_BYTES
    )
