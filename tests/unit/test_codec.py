"""Encrypting and decrypting with a codec: what comes back, and what is refused."""

import asyncio
import base64
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.support.keys import key_codec, read_back, wrapping_file

from waypost import (
    Codec,
    DirectoryKeyStore,
    EncryptionError,
    FileWrapper,
    InvalidCommandError,
    KeyErasedError,
    KeyNotLoadedError,
    KeyStoreError,
    KeyWrappingError,
    MissingKeyError,
    MovedDataError,
    PlaintextError,
    UnauthenticDataError,
)
from waypost.encryption.codec import MAX_PLAINTEXT_BYTES, Found, check_size, read_plain
from waypost.encryption.key_store import StoredKey
from waypost.model.commands import Import, ImportItem
from waypost.model.encrypted_data import is_encrypted
from waypost.model.limits import MAX_DATA_BYTES
from waypost.wire.encode import CreateParts, create_parts, import_body, import_item
from waypost.wire.event_types import EventType

NOW = datetime(2026, 11, 30, tzinfo=UTC)
SECRET = {"said": "the marker", "numbers": [1, 2.5, None, True], "ünïcödé": "会话"}


@pytest.fixture
async def codec(tmp_path: Path) -> Codec:
    made = await key_codec(tmp_path)
    await made.prepare("s", "t")
    return made


def parts(data: dict[str, Any] | None = None, name: str = "n") -> CreateParts:
    return create_parts(name, SECRET if data is None else data)


def encrypted(codec: Codec, session_id: str = "s", name: str = "n", command_id: str = "c-1") -> bytes:
    body = codec.encrypted_body(parts(name=name), session_id, command_id)
    return read_back(body)


def found(data: bytes, session_id: str = "s", name: str = "n", command_id: str | None = "c-1") -> Found:
    return Found(session_id, name, command_id, data, f"checkpoint '{session_id}:7'")


async def opened(codec: Codec, *places: Found) -> list[Any]:
    return [orjson.loads(data) for data in await codec.decrypt(places)]


async def test_data_comes_back_and_is_not_to_be_seen_meanwhile(codec: Codec, tmp_path: Path) -> None:
    data = encrypted(codec)
    assert is_encrypted(data)
    assert b"marker" not in data
    assert b"marker" not in base64.b64decode(orjson.loads(data)["waypost.encrypted"]["ciphertext"])
    assert await opened(codec, found(data)) == [SECRET]
    assert await opened(await key_codec(tmp_path), found(data)) == [SECRET]


async def test_the_quick_way_and_the_general_one_give_the_same_except_for_the_nonce(codec: Codec) -> None:
    quick = codec.encrypted_create(parts(), "s", "c-1")
    assert quick is not None
    general = codec.encrypted_body(parts(), "s", "c-1")
    first, second = orjson.loads(quick), orjson.loads(general)
    for each in (first, second):
        for member in ("nonce", "ciphertext"):
            del each["data"]["waypost.encrypted"][member]
    assert first == second
    assert codec.encrypted_create(parts(), "unknown", "c-1") is None


async def test_the_same_data_is_never_encrypted_the_same(codec: Codec) -> None:
    assert len({encrypted(codec) for _ in range(50)}) == 50


async def test_sessions_have_their_own_keys(codec: Codec) -> None:
    keys = {orjson.loads(encrypted(codec, each))["waypost.encrypted"]["key"] for each in ("s", "t")}
    assert len(keys) == 2


def changed(data: bytes, **members: str) -> bytes:
    outer = orjson.loads(data)
    outer["waypost.encrypted"].update(members)
    return orjson.dumps(outer)


def cut(data: bytes, digits: int) -> bytes:
    ciphertext = orjson.loads(data)["waypost.encrypted"]["ciphertext"]
    return changed(data, ciphertext=ciphertext[:-digits])


def flipped(data: bytes, member: str, at: int) -> bytes:
    raw = bytearray(base64.b64decode(orjson.loads(data)["waypost.encrypted"][member]))
    raw[at] ^= 1
    return changed(data, **{member: base64.b64encode(raw).decode()})


TAMPERED: dict[str, tuple[Callable[[Codec], Found], type[EncryptionError], str]] = {
    "data in another session": (
        lambda codec: found(encrypted(codec), session_id="t"),
        MovedDataError,
        "encrypted for session 's' and moved here",
    ),
    "data in another session that claims to be made for it": (
        lambda codec: found(changed(encrypted(codec), session="t", origin="s"), session_id="t"),
        UnauthenticDataError,
        "does not authenticate",
    ),
    "two rows swapped": (
        lambda codec: found(encrypted(codec), command_id="c-2"),
        MovedDataError,
        "another checkpoint, which the command 'c-1' made",
    ),
    "two rows swapped, with the command ids adapted": (
        lambda codec: found(changed(encrypted(codec), command="c-2"), command_id="c-2"),
        UnauthenticDataError,
        "does not authenticate",
    ),
    "a checkpoint under another name": (
        lambda codec: found(encrypted(codec), name="m"),
        UnauthenticDataError,
        "a checkpoint of another name",
    ),
    "the kind of command changed": (
        lambda codec: found(changed(encrypted(codec), by="import"), command_id="c-2"),
        UnauthenticDataError,
        "does not authenticate",
    ),
    "ciphertext cut by a block": (
        lambda codec: found(cut(encrypted(codec), 24)),
        UnauthenticDataError,
        "does not authenticate",
    ),
    "ciphertext cut within a digit": (
        lambda codec: found(cut(encrypted(codec), 3)),
        UnauthenticDataError,
        "cut or changed",
    ),
    "the JSON cut": (lambda codec: found(encrypted(codec)[:-40]), UnauthenticDataError, "cut or changed"),
    "a bit of the ciphertext": (
        lambda codec: found(flipped(encrypted(codec), "ciphertext", 0)),
        UnauthenticDataError,
        "does not authenticate",
    ),
    "a bit of the tag": (
        lambda codec: found(flipped(encrypted(codec), "ciphertext", -1)),
        UnauthenticDataError,
        "does not authenticate",
    ),
    "a bit of the nonce": (
        lambda codec: found(flipped(encrypted(codec), "nonce", 5)),
        UnauthenticDataError,
        "does not authenticate",
    ),
    "another key named": (
        lambda codec: found(changed(encrypted(codec), key="0" * 32)),
        MissingKeyError,
        "does not hold the key",
    ),
    "another version": (
        lambda codec: found(encrypted(codec).replace(b'"v":1', b'"v":2')),
        UnauthenticDataError,
        "cut or changed",
    ),
    "plaintext": (lambda codec: found(b'{"said":"forged"}'), PlaintextError, "is not encrypted"),
    "nothing": (lambda codec: found(b"{}"), PlaintextError, "is not encrypted"),
}


@pytest.mark.parametrize("case", TAMPERED)
async def test_what_was_tampered_with_is_a_clear_error_and_never_data(codec: Codec, case: str) -> None:
    make, kind, said = TAMPERED[case]
    with pytest.raises(EncryptionError, match=said) as raised:
        await codec.decrypt([found(encrypted(codec)), make(codec)])
    assert type(raised.value) is kind
    assert "Nothing was" in str(raised.value)
    assert "marker" not in str(raised.value)


async def test_a_key_of_the_same_id_that_is_another_does_not_open_it(codec: Codec, tmp_path: Path) -> None:
    data = encrypted(codec)
    key_id = orjson.loads(data)["waypost.encrypted"]["key"]
    other = await key_codec(tmp_path / "other")
    deployment = await other.store.deployment()
    context = {"deployment": deployment, "session": "s", "key": key_id}
    wrapped = other.wrapper.wrap(bytes(32), context)
    await other.store.create(StoredKey("s", key_id, wrapped.wrapping_key, wrapped.wrapped, NOW))
    with pytest.raises(UnauthenticDataError, match="encrypted with another key"):
        await other.decrypt([found(data)])


async def test_plaintext_is_returned_only_if_that_is_allowed(tmp_path: Path) -> None:
    lenient = await key_codec(tmp_path, allow_plaintext=True)
    await lenient.prepare("s")
    places = [found(b'{"old":1}'), found(encrypted(lenient))]
    assert await opened(lenient, *places) == [{"old": 1}, SECRET]
    with pytest.raises(UnauthenticDataError, match="cut or changed"):
        await lenient.decrypt([found(encrypted(lenient)[:-30])])


# Copies.


async def test_a_copy_keeps_the_key_of_its_origin(codec: Codec) -> None:
    copy = read_back(codec.encrypted_body(read_create(encrypted(codec)), "t", "c-9"))
    members = orjson.loads(copy)["waypost.encrypted"]
    assert (members["session"], members["origin"], members["by"]) == ("t", "s", "import")
    assert await opened(codec, found(copy, session_id="t", command_id=None)) == [SECRET]
    # It may replace a checkpoint, whose command id then stays.
    assert await opened(codec, found(copy, session_id="t", command_id="c-of-the-replaced")) == [SECRET]
    with pytest.raises(MovedDataError):
        await codec.decrypt([found(copy)])
    again = read_back(codec.encrypted_body(read_create(copy), "u", "c-10"))
    assert orjson.loads(again)["waypost.encrypted"]["origin"] == "s"
    assert await opened(codec, found(again, session_id="u", command_id=None)) == [SECRET]


async def test_erasing_the_origin_makes_its_copies_unreadable(codec: Codec, tmp_path: Path) -> None:
    copy = read_back(codec.encrypted_body(read_create(encrypted(codec)), "t", "c-9"))
    await codec.store.erase("s", NOW)
    with pytest.raises(KeyErasedError, match="'s' was deleted at 2026-11-30"):
        await (await key_codec(tmp_path)).decrypt([found(copy, session_id="t", command_id=None)])


async def test_data_that_comes_back_to_its_session_stays_byte_for_byte(codec: Codec) -> None:
    data = encrypted(codec)
    assert read_back(codec.encrypted_body(read_create(data), "s", "c-9")) == data


async def test_nobody_moves_what_does_not_authenticate(codec: Codec) -> None:
    with pytest.raises(UnauthenticDataError):
        codec.encrypted_body(read_create(flipped(encrypted(codec), "ciphertext", 3)), "t", "c-9")


async def test_an_import_is_encrypted_item_by_item(codec: Codec) -> None:
    items = [
        ImportItem("s:1", "a", 7, b'{"first":"marker"}', b'{"m":1}'),
        ImportItem("s:2", "n", 8, encrypted(codec)),
        ImportItem("x:3", "n", 9, encrypted(codec, "t")),
    ]
    plain = read_plain(
        EventType.IMPORT, import_body([import_item(each, each.data) for each in items], "replace")
    )
    assert isinstance(plain, Import)
    assert codec.origins(plain, "s") == {"s", "t"}
    body = codec.encrypted_body(plain, "s", "c-5")
    assert b"marker" not in body
    made = read_plain(EventType.IMPORT, body)
    assert isinstance(made, Import)
    assert [each._replace(data=b"") for each in made.checkpoints] == [
        each._replace(data=b"") for each in items
    ]
    assert made.on_conflict == "replace"
    places = [found(each.data, name=each.name, command_id=None) for each in made.checkpoints]
    assert await opened(codec, *places) == [{"first": "marker"}, SECRET, SECRET]


# Keys.


async def test_two_that_meet_a_new_session_together_agree_on_its_key(tmp_path: Path) -> None:
    codecs = [await key_codec(tmp_path) for _ in range(6)]
    await asyncio.gather(*(each.prepare("new") for each in codecs))
    data = [encrypted(each, "new") for each in codecs]
    for each in codecs:
        assert await opened(each, *(found(one, session_id="new") for one in data)) == [SECRET] * 6


async def test_a_call_without_a_key_is_refused_and_says_what_to_do(codec: Codec) -> None:
    assert not codec.has_key("new")
    with pytest.raises(KeyNotLoadedError, match=r"not accepted\. Await publisher\.prepare"):
        codec.encrypted_body(parts(), "new", "c-1")


async def test_an_erased_session_gets_no_key_again(codec: Codec, tmp_path: Path) -> None:
    data = encrypted(codec)
    await codec.store.erase("s", NOW)
    fresh = await key_codec(tmp_path)
    with pytest.raises(KeyErasedError, match="Use another session id"):
        await fresh.prepare("s")
    with pytest.raises(KeyErasedError):
        fresh.has_key("s")
    with pytest.raises(KeyErasedError):
        await fresh.decrypt([found(data)])
    assert (await fresh.store.find(["s"]))["s"].erased


async def test_a_key_in_memory_is_forgotten_soon_after_it_was_erased(tmp_path: Path) -> None:
    codec = await key_codec(tmp_path, refresh=1e-9)
    await codec.prepare("s")
    data = encrypted(codec)
    assert codec.is_stale("s")
    await codec.store.erase("s", NOW)
    with pytest.raises(KeyErasedError):
        await codec.decrypt([found(data)])
    with pytest.raises(KeyErasedError):
        codec.encrypted_body(parts(), "s", "c-2")


async def test_a_store_that_lost_a_known_key_gets_no_new_one(tmp_path: Path) -> None:
    codec = await key_codec(tmp_path, refresh=1e-9)
    await codec.prepare("s")
    (file,) = (tmp_path / "keys").glob("??/*.json")
    file.unlink()
    with pytest.raises(MissingKeyError, match="an older one was probably restored"):
        await codec.prepare("s")
    assert await codec.store.find(["s"]) == {}


async def test_keys_in_memory_stay_in_use_while_the_store_is_unreachable(tmp_path: Path) -> None:
    codec = await key_codec(tmp_path, refresh=1e-9)
    await codec.prepare("s")
    data = encrypted(codec)
    (tmp_path / "keys").rename(tmp_path / "away")
    assert await opened(codec, found(data)) == [SECRET]
    with pytest.raises(KeyStoreError, match="no key store"):
        await codec.prepare("new")
    assert not (tmp_path / "keys").exists()


async def test_a_lost_wrapping_key_is_reported(codec: Codec, tmp_path: Path) -> None:
    other = Codec(DirectoryKeyStore(tmp_path / "keys"), FileWrapper(wrapping_file(tmp_path / "another.key")))
    with pytest.raises(KeyWrappingError, match="Add the older wrapping key"):
        await other.decrypt([found(encrypted(codec))])


async def test_the_oldest_keys_leave_the_memory(tmp_path: Path) -> None:
    codec = await key_codec(tmp_path, max_keys=3)
    for number in range(5):
        await codec.prepare(f"s-{number}")
    assert [codec.has_key(f"s-{number}") for number in range(5)] == [False, False, True, True, True]


# Sizes and bodies.


async def test_the_largest_data_fits_into_a_command_with_the_longest_names(codec: Codec) -> None:
    long = "\U0001f600" * 200
    await codec.prepare(long, long[:-1] + "x")
    data = {"x": "y" * (MAX_PLAINTEXT_BYTES - len('{"x":""}'))}
    made = read_back(codec.encrypted_body(create_parts(long, data), long, "\U0001f600" * 64))
    moved = read_back(codec.encrypted_body(read_create(made, long), long[:-1] + "x", "c-2"))
    assert len(made) < len(moved) <= MAX_DATA_BYTES


def test_what_does_not_fit_once_it_is_encrypted_is_refused_at_the_call() -> None:
    with pytest.raises(InvalidCommandError, match="at most 680000 are allowed if it is encrypted") as raised:
        check_size(parts({"x": "y" * MAX_PLAINTEXT_BYTES}))
    assert raised.value.code == "too-large"


def test_only_creates_and_imports_carry_data() -> None:
    assert read_plain(EventType.PIN, b'{"checkpoint_id":"s:1"}') is None
    assert read_plain("unknown.type", b"whatever") is None


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"name":"n"}', b'{"name":"n","data":[]}', b"\xff"])
def test_a_body_whose_data_is_ambiguous_is_rejected(body: bytes) -> None:
    with pytest.raises(InvalidCommandError):
        read_plain(EventType.CREATE, body)


def read_create(data: bytes, name: str = "n") -> CreateParts:
    plain = read_plain(EventType.CREATE, b'{"name":%b,"data":%b}' % (orjson.dumps(name), data))
    assert isinstance(plain, CreateParts)
    return plain


@pytest.mark.parametrize("options", [{"refresh": 0}, {"refresh": float("nan")}, {"max_keys": 0}])
def test_options_without_a_meaning_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        Codec(DirectoryKeyStore(tmp_path), FileWrapper(tmp_path / "k"), **options)


async def test_a_repr_shows_where_the_keys_are_and_none_of_them(codec: Codec, tmp_path: Path) -> None:
    assert repr(codec) == f"<Codec with keys in the directory {tmp_path / 'keys'}>"
