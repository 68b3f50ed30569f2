"""Mutants of encryption: what a worker rejects as plaintext, what a codec refuses to open, and what becomes of keys."""

from tests.mutants.mutant import Edit, Mutant

SESSION = "waypost.model.session:"
SHAPE = "waypost.model.encrypted_data:"
CODEC = "waypost.encryption.codec:Codec."
KEY = "waypost.encryption.session_key:"
KEYS = "waypost.encryption.session_keys:SessionKeys."
DIRECTORY = "waypost.encryption.directory:DirectoryKeyStore."
ENCRYPTER = "waypost.publisher.encrypter:Encrypter."
RULE_TESTS = ("tests/unit/test_encrypted_sessions.py",)
CODEC_TESTS = ("tests/unit/test_codec.py",)
PLACE_TESTS = ("tests/properties/test_encryption.py",)
STORE_TESTS = ("tests/conformance/test_key_stores.py",)
PUBLISHER_TESTS = ("tests/unit/test_encrypting_publisher.py",)

ENCRYPTION: tuple[Mutant, ...] = (
    Mutant(
        "plaintext-accepted-in-an-encrypted-session",
        "a session that accepts only encrypted data takes anything in a create",
        (
            Edit(
                SESSION + "_require_encryption",
                "if not (action.encrypted or is_encrypted(action.data)):",
                "if False:",
            ),
        ),
        RULE_TESTS,
    ),
    Mutant(
        "plaintext-accepted-in-an-import",
        "of an import, only the first checkpoint must be encrypted",
        (
            Edit(
                SESSION + "_require_encryption",
                "for item in action.checkpoints:",
                "for item in action.checkpoints[:1]:",
            ),
        ),
        RULE_TESTS,
    ),
    Mutant(
        "encryption-taken-back",
        "a session that accepts only encrypted data can be told to accept other data",
        (Edit(SESSION + "_require_encryption", '("encrypted", False) in action.changes', "False"),),
        RULE_TESTS,
    ),
    Mutant(
        "encryption-of-the-deployment-ignored",
        "sessions with a policy of their own accept plaintext although the deployment does not",
        (Edit(SESSION + "decide", "if policy.encrypted or default.encrypted:", "if policy.encrypted:"),),
        RULE_TESTS,
    ),
    Mutant(
        "any-base64-is-a-ciphertext",
        "data counts as encrypted although it is too short for a tag",
        (Edit(SHAPE + "_fits", ">= _FEWEST_BYTES", ">= 0"),),
        RULE_TESTS,
    ),
    Mutant(
        "quick-look-takes-any-text",
        "data that begins as encrypted data does counts as encrypted, whatever follows",
        (
            Edit(SHAPE + "is_as_written", "_ENDS.get(rest)", "0"),
            Edit(SHAPE + "is_as_written", "ciphertext.endswith(rest)", "True"),
        ),
        RULE_TESTS,
    ),
    Mutant(
        "quick-look-takes-padding-anywhere",
        "data counts as encrypted although its ciphertext is no base64",
        (Edit(SHAPE + "is_as_written", "ciphertext.endswith(rest)", "True"),),
        RULE_TESTS,
    ),
    Mutant(
        "encrypted-data-taken-without-a-look",
        "data that begins as encrypted data does is taken, even if it is no JSON",
        (
            Edit(
                "waypost.wire.decode:_plain_create",
                "is_as_written(data)",
                "is_as_written(data) or b'\"ciphertext\":' in data",
            ),
        ),
        ("tests/properties/test_decode.py",),
    ),
    Mutant(
        "plaintext-next-to-the-ciphertext",
        "data counts as encrypted although it has further members",
        (
            Edit(
                SHAPE + "parse_encrypted",
                'inner.keys() - {"origin"} != _MEMBERS',
                "not inner.keys() >= _MEMBERS",
            ),
        ),
        RULE_TESTS,
    ),
    Mutant(
        "encrypted-policies-not-stored",
        "Postgres does not know that a session accepts only encrypted data",
        (Edit("waypost_worker.postgres.rows:policy_json", "if policy.encrypted:", "if False:"),),
        (
            "tests/conformance/test_store_batches.py::test_a_session_keeps_counter_and_policy_without_checkpoints",
        ),
    ),
    Mutant(
        "plaintext-returned",
        "a reader with a codec returns data that is not encrypted",
        (Edit(CODEC + "_parsed", "if self._allow_plaintext:", "if True:"),),
        CODEC_TESTS,
    ),
    Mutant(
        "swapped-rows-returned",
        "data of another checkpoint of the session is returned",
        (Edit(CODEC + "_parsed", "found.command_id not in (None, encrypted.command)", "False"),),
        CODEC_TESTS,
    ),
    Mutant(
        "moved-data-returned",
        "data of another session is returned where it was moved to",
        (Edit(CODEC + "_parsed", "if encrypted.session != found.session_id:", "if False:"),),
        CODEC_TESTS,
    ),
    Mutant(
        "name-not-authenticated",
        "data opens under another name",
        (Edit(KEY + "_associated", "_listed(by, command_id, name)", "_listed(by, command_id)"),),
        PLACE_TESTS,
    ),
    Mutant(
        "session-not-authenticated",
        "data opens in another session whose id was written into it",
        (Edit(KEY + "SessionKey._associated_start", ", self.origin, session_id)", ", self.origin)"),),
        PLACE_TESTS,
    ),
    Mutant(
        "lengths-not-authenticated",
        "texts next to each other can exchange letters",
        (Edit(KEY + "_listed", 'b"%d:%b\\n" % (len(raw), raw)', "raw"),),
        PLACE_TESTS,
    ),
    Mutant(
        "copies-get-a-key-of-their-own",
        "erasing a session leaves its copies readable",
        (
            Edit(
                CODEC + "_moved",
                "key = self._key(there.origin)",
                "key = self._key(session_id)",
            ),
        ),
        CODEC_TESTS,
    ),
    Mutant(
        "lost-keys-made-again",
        "a session whose key is missing from a restored store gets a second one",
        (Edit(KEYS + "_look_up", "self._require_unknown(session_id)", "pass"),),
        CODEC_TESTS,
    ),
    Mutant(
        "erased-keys-made-again",
        "a session whose key was deleted gets another one",
        (
            Edit(
                DIRECTORY + "_create",
                "if (found := self._read(path)) is not None:",
                "if (found := self._read(path)) is not None and not found.erased:",
            ),
        ),
        STORE_TESTS,
    ),
    Mutant(
        "tombstones-replaced",
        "a rotation puts a key in the place of its tombstone",
        (Edit(DIRECTORY + "_replace", "if old.erased or self._read(path) != old:", "if False:"),),
        STORE_TESTS,
    ),
    Mutant(
        "later-commands-overtake-those-without-a-key",
        "a command that needs no key is sent before those of its session that wait for one",
        (
            Edit(
                ENCRYPTER + "accept",
                "if session_id is not None and (unloaded or session_id in self._held):",
                "if session_id is not None and unloaded:",
            ),
        ),
        PUBLISHER_TESTS,
    ),
    Mutant(
        "plaintext-held-with-a-spool",
        "a publisher with a spool keeps commands in memory alone",
        (Edit(ENCRYPTER + "accept", "if self._spooled:", "if False:"),),
        PUBLISHER_TESTS,
    ),
)
