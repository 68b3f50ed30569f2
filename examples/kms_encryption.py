"""Session keys wrapped by AWS KMS: an agent's checkpoints are encrypted, and readable with access to the KMS key.

Needs pip install boto3, 'waypost[encryption,reader]', the id of a symmetric KMS key in KMS_KEY_ID, AWS credentials that
may encrypt and decrypt with it, and a `waypost dev` that runs in the current directory. For the command line and the
console, set WAYPOST_KEY_WRAPPER=kms_encryption:key_wrapper.
"""

import asyncio
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import boto3  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

import waypost


class KmsClient(Protocol):
    """The methods of boto3's client that are used here. Threads may share it."""

    def encrypt(self, **request: Any) -> dict[str, Any]:
        """Encrypt up to 4 KB."""
        ...

    def decrypt(self, **request: Any) -> dict[str, Any]:
        """Decrypt what was encrypted in the same context."""
        ...


class KmsWrapper:
    """Key wrapper that has AWS KMS wrap each session key; the KMS key never leaves it.

    KMS authenticates the context, and writes it to CloudTrail: which session's key was used, when, and by whom. When
    the KMS key is rotated, KMS itself keeps the older versions. To change to another KMS key, set its id and run
    ``waypost keys rotate`` with credentials that may decrypt with the older one.
    """

    def __init__(self, key_id: str, client: KmsClient) -> None:
        self._key_id = key_id
        self._client = client

    def wrap(self, key: bytes, context: Mapping[str, str]) -> waypost.WrappedKey:
        """Wrap a session key."""
        try:
            answer = self._client.encrypt(KeyId=self._key_id, Plaintext=key, EncryptionContext=dict(context))
        except (BotoCoreError, ClientError) as error:
            raise waypost.KeyWrappingError(f"KMS did not wrap a session key: {error}") from error
        return waypost.WrappedKey(answer["KeyId"], answer["CiphertextBlob"])

    def unwrap(self, wrapped: waypost.WrappedKey, context: Mapping[str, str]) -> bytes:
        """Return a session key."""
        try:
            answer = self._client.decrypt(
                KeyId=wrapped.wrapping_key,
                CiphertextBlob=wrapped.wrapped,
                EncryptionContext=dict(context),
            )
        except (BotoCoreError, ClientError) as error:
            raise waypost.KeyWrappingError(f"KMS did not unwrap a session key: {error}") from error
        key: bytes = answer["Plaintext"]
        return key


def key_wrapper() -> KmsWrapper:
    """Return the wrapper for the KMS key that the environment names."""
    config = Config(connect_timeout=3, read_timeout=5, retries={"mode": "standard", "max_attempts": 3})
    return KmsWrapper(os.environ["KMS_KEY_ID"], boto3.client("kms", config=config))


async def main() -> None:
    """Publish a checkpoint and read it back, with the key and without."""
    with tempfile.TemporaryDirectory() as directory:
        # In production: waypost.PostgresKeyStore(dsn), in a separate Postgres.
        store = waypost.DirectoryKeyStore(Path(directory) / "keys")
        await store.initialize()
        codec = waypost.Codec(store, key_wrapper())
        async with (
            waypost.Publisher(codec=codec) as publisher,
            waypost.Reader(codec=codec) as reader,
            waypost.Reader() as without_keys,
        ):
            result = await publisher.create_and_wait("case-7", "diagnosed", {"finding": "benign"})
            await reader.wait_for(result.token)
            (key,) = await store.page()
            print("wrapped by KMS:", "key/" in key.wrapping_key)
            found = await reader.session("case-7").get_latest()
            print("with the key:", found and found.data)
            hidden = await without_keys.session("case-7").get_latest()
            print("without it:", hidden and list(hidden.data))


if __name__ == "__main__":
    asyncio.run(main())
