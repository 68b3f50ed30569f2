"""The codec, with which publishers, subscribers, readers and adapters encrypt and decrypt.

Only these edges have one. Between them, in topics, databases, snapshots and spools, there is ciphertext.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Final, NamedTuple

from waypost.arguments import require_above_zero, require_callable
from waypost.encryption.key_store import KeyStore
from waypost.encryption.session_keys import SessionKeys
from waypost.encryption.wrapping import KeyWrapper
from waypost.errors import (
    InvalidCommandError,
    KeyNotLoadedError,
    MissingKeyError,
    MovedDataError,
    PlaintextError,
    UnauthenticDataError,
)
from waypost.model.commands import Create, Import
from waypost.model.encrypted_data import CREATED, IMPORTED, EncryptedData, is_marked, parse_encrypted
from waypost.wire.encode import CreateParts, action_parts, check_session_id, import_body, import_item

if TYPE_CHECKING:
    from waypost.discovery import KeySettings
    from waypost.encryption.session_key import SessionKey

#: Bytes of JSON that fit into a command once they are encrypted, with the longest names around them.
MAX_PLAINTEXT_BYTES: Final = 680_000
REFRESH_SECONDS: Final = 300.0
MOST_KEYS: Final = 100_000


#: A command with data to encrypt.
Plain = CreateParts | Import


class Found(NamedTuple):
    """Data that was found somewhere: in which session, under which name, and what brought it.

    ``command_id`` is the id of the command that made the checkpoint, None if that is not known. ``label`` says to
    people which checkpoint it is.
    """

    session_id: str
    name: str
    command_id: str | None
    data: bytes
    label: str


class Codec:
    """Encryption of checkpoint data: ``Publisher(…, codec=Codec(key_store, key_wrapper))``.

    A publisher with a codec encrypts the data of all checkpoints. A reader or subscriber with a codec decrypts it, and
    raises an error instead of returning what does not authenticate. Names and metadata stay readable to everybody.

    Args:
        store: Where the wrapped session keys are: :class:`waypost.PostgresKeyStore` or
            :class:`waypost.DirectoryKeyStore`.
        wrapper: What unwraps them: :class:`waypost.FileWrapper`, :class:`waypost.EnvironmentWrapper`, or your own.
        allow_plaintext: Whether reads also return data that is not encrypted, as in a session that began without a
            codec. Anyone who can write to the topic or the database can then replace encrypted data with unencrypted
            data.
        refresh: Seconds after which a key in memory is looked up again, so that an erased session's key is forgotten.
        max_keys: The most session keys in memory.
    """

    def __init__(
        self,
        store: KeyStore,
        wrapper: KeyWrapper,
        *,
        allow_plaintext: bool = False,
        refresh: float = REFRESH_SECONDS,
        max_keys: int = MOST_KEYS,
    ) -> None:
        require_above_zero("refresh", refresh)
        require_above_zero("max_keys", max_keys)
        require_callable("the find of store, a key store,", getattr(store, "find", None))
        require_callable("the unwrap of wrapper, a key wrapper,", getattr(wrapper, "unwrap", None))
        import_module("waypost.encryption.session_key")  # says what to install if cryptography is missing
        self.store = store
        self.wrapper = wrapper
        self._allow_plaintext = allow_plaintext
        self._keys = SessionKeys(store, wrapper, refresh=refresh, most=max_keys)

    def __repr__(self) -> str:
        return f"<Codec with keys in {self.store.described}>"

    @staticmethod
    def from_settings() -> "Codec":
        """Return the codec of the deployment that the command line finds: ``WAYPOST_KEYS_…`` and waypost.toml.

        Raises:
            SettingsError: They name no key store or no wrapping key, or one that can't be used.
        """
        from waypost.discovery import find_key_settings

        return make_codec(find_key_settings())

    async def prepare(self, *session_ids: str) -> None:
        """Have the keys of these sessions in memory, and make those that do not exist yet.

        Raises:
            InvalidCommandError: No session can have one of these ids.
            KeyErasedError: The key of one was deleted.
            KeyStoreError: The key store can't be used.
            KeyWrappingError: A key can't be wrapped or unwrapped.
        """
        for session_id in session_ids:
            check_session_id(session_id)
        await self._keys.load(session_ids, create=True)
        for session_id in session_ids:
            self._keys.find(session_id)

    async def close(self) -> None:
        """Close the key store's connections of this event loop. The keys stay in memory."""
        await self.store.close()

    # Used by publishers. None of this waits.

    def origins(self, plain: Plain, session_id: str) -> set[str]:
        """Return the sessions whose keys are needed to encrypt a command."""
        items = (plain,) if isinstance(plain, CreateParts) else plain.checkpoints
        needed = set()
        for item in items:
            found = parse_encrypted(item.data)
            if found is None:
                needed.add(session_id)
            elif found.session != session_id:
                needed.add(found.origin)
        return needed

    def is_stale(self, session_id: str) -> bool:
        """Tell whether a session's key should be looked up again, because it may have been deleted."""
        return self._keys.is_stale(session_id)

    def has_key(self, session_id: str) -> bool:
        """Tell whether a session's key is in memory.

        Raises:
            KeyErasedError: It was deleted.
        """
        return self._keys.find(session_id) is not None

    def encrypted_create(self, plain: CreateParts, session_id: str, command_id: str) -> bytes | None:
        """Return the body of a create with encrypted data; None if anything about it is not as it usually is."""
        key = self._keys.find(session_id)
        if key is None or len(plain.data) > MAX_PLAINTEXT_BYTES or is_marked(plain.data):
            return None
        return plain.body(key.encrypt(plain.data, plain.name, command_id))

    def encrypted_body(self, plain: Plain, session_id: str, command_id: str) -> bytes:
        """Return the body of a command, with its data encrypted by keys in memory.

        Raises:
            KeyNotLoadedError: A key is not in memory.
            KeyErasedError: The session's key was deleted.
            UnauthenticDataError: Data that is encrypted for another session does not authenticate.
        """
        if isinstance(plain, CreateParts):
            return plain.body(self._encrypted(plain.data, plain.name, session_id, command_id, CREATED))
        items = [
            import_item(item, self._encrypted(item.data, item.name, session_id, command_id, IMPORTED))
            for item in plain.checkpoints
        ]
        return import_body(items, plain.on_conflict)

    def _encrypted(self, data: bytes, name: str, session_id: str, command_id: str, by: str) -> bytes:
        if is_marked(data) and (there := parse_encrypted(data)) is not None:
            return data if there.session == session_id else self._moved(there, name, session_id)
        return self._key(session_id).encrypt(data, name, command_id, by=by)

    def _moved(self, there: EncryptedData, name: str, session_id: str) -> bytes:
        """Return encrypted data for another session, still with the key of its origin.

        So erasing the origin makes the copies unreadable too.
        """
        data = self._decrypted(there, name, f"a checkpoint {name!r} of {there.session!r}")
        key = self._key(there.origin)
        return key.encrypt(data, name, there.command, by=IMPORTED, session_id=session_id)

    def _key(self, session_id: str) -> "SessionKey":
        key = self._keys.find(session_id)
        if key is None:
            raise not_loaded(session_id)
        return key

    # Used by readers.

    async def decrypt(self, found: Sequence[Found]) -> list[bytes]:
        """Return the JSON of data that was found, in the same order.

        Raises:
            UnauthenticDataError: Some of it does not authenticate, was made for another place (MovedDataError), or is
                not encrypted (PlaintextError). Nothing is returned.
            KeyErasedError: The key of one was deleted.
            MissingKeyError: The key store lacks the key of one.
            KeyStoreError: The key store can't be used.
            KeyWrappingError: A key can't be unwrapped.
        """
        encrypted = [self._parsed(each) for each in found]
        origins = {each.origin: each.key for each in encrypted if each is not None}
        await self._keys.load(origins)
        if unknown := [origin for origin, key in origins.items() if not self._is_known(origin, key)]:
            await self._keys.load(unknown, again=True)
        return [
            place.data if each is None else self._decrypted(each, place.name, place.label)
            for place, each in zip(found, encrypted, strict=True)
        ]

    def _is_known(self, origin: str, key_id: str) -> bool:
        key = self._keys.find(origin)
        return key is not None and key.key_id == key_id

    def _parsed(self, found: Found) -> EncryptedData | None:
        encrypted = parse_encrypted(found.data)
        if encrypted is None:
            if is_marked(found.data):
                raise UnauthenticDataError(
                    f"The data of {found.label} is not encrypted data as Waypost writes it: it was cut or changed. "
                    "Nothing was returned"
                )
            if self._allow_plaintext:
                return None
            raise PlaintextError(
                f"The data of {found.label} is not encrypted, and this codec accepts only encrypted data. Nothing was "
                "returned. If the session was begun without encryption, use allow_plaintext=True"
            )
        if encrypted.session != found.session_id:
            raise MovedDataError(
                f"The data of {found.label} was encrypted for session {encrypted.session!r} and moved here. Nothing "
                "was returned"
            )
        if encrypted.by == CREATED and found.command_id not in (None, encrypted.command):
            raise MovedDataError(
                f"The data of {found.label} belongs to another checkpoint, which the command {encrypted.command!r} "
                "made. Nothing was returned"
            )
        return encrypted

    def _decrypted(self, encrypted: EncryptedData, name: str, label: str) -> bytes:
        key = self._keys.find(encrypted.origin)
        if key is not None and key.key_id == encrypted.key:
            try:
                return key.decrypt(encrypted, name)
            except UnauthenticDataError as error:
                raise UnauthenticDataError(f"The data of {label} {error}. Nothing was returned") from None
        raise MissingKeyError(
            f"The key store, {self.store.described}, does not hold the key {encrypted.key!r} of session "
            f"{encrypted.origin!r}. Nothing was decrypted. Is it the key store of another deployment, or was an older "
            "one restored?"
        )


def not_loaded(session_id: str) -> KeyNotLoadedError:
    """Return the error for a call that would have to wait for a key."""
    return KeyNotLoadedError(
        f"The key of session {session_id!r} is not in memory yet, and a call can't wait for it. The command was not "
        "accepted. Await publisher.prepare(session_id) before the first call for a session"
    )


def check_size(plain: Plain) -> None:
    """Raise InvalidCommandError if some data of a command does not fit into a command once it is encrypted."""
    for item in (plain,) if isinstance(plain, CreateParts) else plain.checkpoints:
        if len(item.data) > MAX_PLAINTEXT_BYTES and not is_marked(item.data):
            raise InvalidCommandError(
                "too-large",
                f"data has {len(item.data)} bytes, at most {MAX_PLAINTEXT_BYTES} are allowed if it is encrypted: store "
                "the large part elsewhere and keep a reference to it",
            )


def read_plain(command_type: str, body: bytes) -> Plain | None:
    """Parse the body of a command with data to encrypt. Return None if it carries no data.

    Raises:
        InvalidCommandError: The body is invalid, so its data can't be found.
    """
    from waypost.wire.decode import parse_body
    from waypost.wire.event_types import EventType

    if command_type not in (EventType.CREATE, EventType.IMPORT):
        return None
    action = parse_body(command_type, body)
    if isinstance(action, Create):
        return action_parts(action)
    assert isinstance(action, Import)
    return action


def make_codec(settings: "KeySettings") -> Codec:
    """Return the codec of a deployment. It opens nothing yet.

    Raises:
        SettingsError: The settings name no key store or no wrapping key, or one that can't be used.
    """
    from waypost.encryption.settings import make_store, make_wrapper  # brings every key store

    return Codec(make_store(settings), make_wrapper(settings), allow_plaintext=settings.allow_plaintext)
