"""Wrapping session keys with keys in a file or a variable."""

import base64
from pathlib import Path

import pytest

from waypost.encryption.wrapping import (
    EnvironmentWrapper,
    FileWrapper,
    KeyWrapper,
    WrappedKey,
    new_wrapping_key,
    parse_wrapping_keys,
)
from waypost.errors import KeyWrappingError

CONTEXT = {"deployment": "d", "session": "s", "key": "k"}
KEY = bytes(range(32))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "wrapping.key"
    path.touch(mode=0o600)
    path.write_text(new_wrapping_key() + "\n")
    return path


@pytest.fixture(params=["file", "variable"])
def wrapper(request: pytest.FixtureRequest, file: Path, monkeypatch: pytest.MonkeyPatch) -> KeyWrapper:
    if request.param == "file":
        return FileWrapper(file)
    monkeypatch.setenv("WAYPOST_WRAPPING_KEY", new_wrapping_key())
    return EnvironmentWrapper()


def test_a_key_comes_back(wrapper: KeyWrapper) -> None:
    wrapped = wrapper.wrap(KEY, CONTEXT)
    assert KEY not in wrapped.wrapped
    assert wrapper.unwrap(wrapped, dict(reversed(CONTEXT.items()))) == KEY
    assert wrapper.wrap(KEY, CONTEXT).wrapped != wrapped.wrapped


@pytest.mark.parametrize(
    "context",
    [
        {},
        {**CONTEXT, "session": "t"},
        {**CONTEXT, "more": ""},
        {"deployment": "d", "session": "sk", "key": ""},
    ],
)
def test_a_key_wrapped_in_one_context_is_not_unwrapped_in_another(
    wrapper: KeyWrapper, context: dict[str, str]
) -> None:
    wrapped = wrapper.wrap(KEY, CONTEXT)
    with pytest.raises(KeyWrappingError, match="does not authenticate"):
        wrapper.unwrap(wrapped, context)


def test_no_bit_of_a_wrapped_key_can_be_changed_or_left_out(wrapper: KeyWrapper) -> None:
    wrapped = wrapper.wrap(KEY, CONTEXT)
    changed = [
        wrapped.wrapped[:at] + bytes([wrapped.wrapped[at] ^ 1]) + wrapped.wrapped[at + 1 :]
        for at in range(len(wrapped.wrapped))
    ]
    for each in (*changed, wrapped.wrapped[:-1], wrapped.wrapped[:12], b""):
        with pytest.raises(KeyWrappingError):
            wrapper.unwrap(WrappedKey(wrapped.wrapping_key, each), CONTEXT)


def test_a_rotated_file_needs_no_restart(file: Path) -> None:
    before, running = FileWrapper(file), FileWrapper(file)
    old = before.wrap(KEY, CONTEXT)
    assert running.unwrap(old, CONTEXT) == KEY
    file.write_text(new_wrapping_key() + "\n" + file.read_text())
    new = before.wrap(KEY, CONTEXT)
    assert new.wrapping_key != old.wrapping_key
    assert running.unwrap(new, CONTEXT) == KEY
    assert running.unwrap(old, CONTEXT) == KEY


def test_an_unknown_wrapping_key_is_named(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    other.touch(mode=0o600)
    other.write_text(new_wrapping_key())
    wrapped = FileWrapper(other).wrap(KEY, CONTEXT)
    with pytest.raises(KeyWrappingError, match=f"wrapped with '{wrapped.wrapping_key}'.*Add the older"):
        FileWrapper(file).unwrap(wrapped, CONTEXT)


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o666])
def test_a_file_that_others_can_read_or_change_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(KeyWrappingError, match=f"mode {mode:o}.*chmod 600"):
        FileWrapper(file).wrap(KEY, CONTEXT)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n",
        "secret!",
        base64.b64encode(bytes(16)).decode(),
        base64.b64encode(bytes(32)).decode() + " x",
        "ä",
    ],
)
def test_what_is_not_a_wrapping_key_is_refused_and_not_quoted(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(KeyWrappingError, match="32 random bytes") as raised:
        FileWrapper(file).wrap(KEY, CONTEXT)
    assert "secret" not in str(raised.value)
    with pytest.raises(KeyWrappingError):
        parse_wrapping_keys(text, "a text")


def test_a_missing_key_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyWrappingError, match="does not exist"):
        FileWrapper(tmp_path / "none").wrap(KEY, CONTEXT)
    monkeypatch.delenv("WAYPOST_WRAPPING_KEY", raising=False)
    with pytest.raises(KeyWrappingError, match="not set"):
        EnvironmentWrapper().unwrap(WrappedKey("x", b""), CONTEXT)
