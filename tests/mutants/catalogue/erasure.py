"""Mutants of erasure: what comes back, what stays where it should not, and what a database forgets of a tombstone."""

from tests.mutants.mutant import Edit, Mutant

SESSION = "waypost.model.session:"
INDEX = "waypost.model.index:Session."
BATCH = "waypost_worker.partition.batch:"
PORTS = "waypost_worker.partition.ports:Changes."
KEPT = "waypost_worker.partition.kept:"
FOLD = "waypost_worker.recovery.memory_fold:MemoryFold."
COMPARATOR = "waypost_worker.recovery.verify.comparator:Comparator."
RESULTS = "waypost_worker.recovery.replay.result_fold:ResultFold."
STORES = ("tests/conformance/test_store_erasure.py",)
ERASER = "waypost_worker.cli.erase.eraser:Eraser."
MARKED = ("tests/integration/test_cli_erase.py::test_a_marker_is_nowhere_in_postgres_afterwards",)
KEYS = "tests/integration/test_cli_erase_keys.py::"

ERASURE: tuple[Mutant, ...] = (
    Mutant(
        "erased-sessions-come-back",
        "a create that comes after an erasure begins the session again",
        (Edit(SESSION + "decide", "if session.erased_at is not None:", "if False:"),),
    ),
    Mutant(
        "repeated-erasures-count",
        "an erase command that is repeated is applied again",
        (Edit(SESSION + "_after_erasure", "session.knows(command.id)", "False"),),
    ),
    Mutant(
        "a-second-erasure-moves-the-first",
        "a second erasure makes the tombstone younger",
        (Edit(SESSION + "_after_erasure", "return Erased(erased_at)", "return Erased(command.recorded_at)"),),
    ),
    Mutant(
        "pinned-checkpoints-are-not-erased",
        "an erasure leaves pinned checkpoints in the store",
        (
            Edit(
                SESSION + "_decide",
                "return Erased(now, tuple(session.live_in_order()))",
                "return Erased(now, session.removable(False))",
            ),
        ),
    ),
    Mutant(
        "the-policy-is-not-erased",
        "the policy of an erased session stays",
        (Edit(INDEX + "erase", "self.policy = None", "pass"),),
    ),
    Mutant(
        "erased-ids-stay-in-the-store",
        "the command ids of an erased session stay in the store",
        (
            Edit(
                SESSION + "evolve",
                "return DedupChanges(tuple(added), command.position)",
                "return DedupChanges(tuple(added), None)",
            ),
        ),
    ),
    Mutant(
        "rejections-outlive-an-erasure",
        "rejected commands of a session stay in the store when it is erased",
        (Edit(BATCH + "Batch._evolve", "changes.erased[session_id] = command.position", "pass"),),
    ),
    Mutant(
        "rejections-of-the-same-batch-outlive-an-erasure",
        "rejected commands that one batch has before an erasure are stored",
        (Edit(PORTS + "kept_rejections", "row.offset > self.erased.get(row.session_id, -1)", "True"),),
    ),
    Mutant(
        "late-commands-leave-their-content",
        "the content of a command to an erased session is kept",
        (
            Edit(
                BATCH + "Batch._reject",
                "kept(row if erased_at is None else without_content(row))",
                "kept(row)",
            ),
        ),
    ),
    Mutant(
        "late-commands-leave-their-headers",
        "the headers of a command to an erased session are kept",
        (Edit(KEPT + "without_content", "headers=(),", ""),),
    ),
    Mutant(
        "unreadable-commands-leave-their-content",
        "a command to an erased session that can't be read is kept like any other",
        (
            Edit(
                BATCH + "decode",
                "_session_here(record, partition, partitions)",
                "None",
            ),
        ),
    ),
    Mutant(
        "late-commands-are-quoted",
        "the rejection of an unreadable command to an erased session says what was wrong with it",
        (Edit(BATCH + "Batch._reject", "if erased_at is not None:", "if False:"),),
    ),
    Mutant(
        "tombstones-are-not-loaded",
        "a tombstone that is loaded from Postgres is taken for a session",
        (Edit("waypost_worker.postgres.store:_session", 'row["erased_at"]', "None"),),
        STORES,
    ),
    Mutant(
        "tombstones-are-not-stored",
        "the commit does not note when a session was erased",
        (
            Edit("sql:commit", "erased_at = excluded.erased_at", "erased_at = s.erased_at"),
            Edit("sql:commit", "insert into waypost.sessions (", "insert into waypost.sessions as s ("),
        ),
        STORES,
    ),
    Mutant(
        "tombstones-of-groups-are-not-stored",
        "a commit of several partitions does not note when a session was erased",
        (
            Edit("sql:commit_group", "erased_at = excluded.erased_at", "erased_at = s.erased_at"),
            Edit("sql:commit_group", "insert into waypost.sessions (", "insert into waypost.sessions as s ("),
        ),
        STORES,
    ),
    Mutant(
        "rejections-of-erased-sessions-stay-in-postgres",
        "the commit does not delete rejected commands of a session that it erases",
        (Edit("sql:commit", "where $60::text <> '{}'", "where $60::text = '{}'"),),
        STORES,
    ),
    Mutant(
        "rejections-of-erased-sessions-stay-in-postgres-after-groups",
        "a commit of several partitions does not delete rejected commands of sessions that it erases",
        (Edit("sql:commit_group", "where $73::text <> '{}'", "where $73::text = '{}'"),),
        STORES,
    ),
    Mutant(
        "an-erasure-takes-what-comes-later",
        "the commit deletes rejected commands that came after the erasure",
        (Edit("sql:commit", 'and r."offset" < e.below', "and r.session_id is not null"),),
        STORES,
    ),
    Mutant(
        "an-erasure-takes-rejections-of-others",
        "the commit deletes rejected commands of all sessions of the partition",
        (
            Edit(
                "sql:commit",
                'and r."offset" < e.below\n      and r.session_id = e.session_id',
                'and r."offset" < e.below',
            ),
        ),
        STORES,
    ),
    Mutant(
        "verify-does-not-know-tombstones",
        "verify does not tell of a tombstone that is missing, or is none",
        (Edit(COMPARATOR + "session", "session.erased_at)", "row.erased_at)"),),
    ),
    Mutant(
        "verify-wants-erased-rejections",
        "verify --strict misses the rejected commands that an erasure took",
        (Edit(FOLD + "was_erased", "offset < below", "False"),),
        ("tests/unit/test_memory_fold.py",),
    ),
    Mutant(
        "verify-takes-adopted-rejections-for-erased",
        "verify wants the rejected commands of former topics gone, although nobody erased their sessions",
        (Edit(FOLD + "was_erased", "self.erased.get(session_id)", "self.erased.get(session_id, -1)"),),
        ("tests/unit/test_memory_fold.py",),
    ),
    Mutant(
        "verify-begins-without-tombstones",
        "a verification that begins with a snapshot takes erased sessions for live ones",
        (
            Edit(
                "waypost_worker.recovery.verify.base_snapshot:begin",
                "stored.last_recorded_at, stored.erased_at",
                "stored.last_recorded_at",
            ),
        ),
    ),
    Mutant(
        "results-erase-nothing",
        "a rebuild from results keeps what the results before an erasure show",
        (
            Edit(
                RESULTS + "_decision",
                'return Erased(parse_micros(body["erased_at"]), tuple(session.live_in_order()))',
                "return Cleared(())",
            ),
        ),
        ("tests/unit/test_result_fold.py",),
    ),
    Mutant(
        "results-stay-in-the-outbox",
        "an erasure does not wait until results of the session left the outbox",
        (Edit(ERASER + "_settle", 'await self._command(session, result.body["command"]["id"])', "pass"),),
        MARKED,
    ),
    Mutant(
        "misrouted-commands-stay",
        "an erasure leaves rejected commands of the session in other partitions",
        (Edit(ERASER + "erase", "for code in _LEFT_BY_WORKERS:", "for code in ():"),),
        MARKED,
    ),
    Mutant(
        "the-key-stays",
        "an erasure leaves the session's key where it is",
        (Edit(ERASER + "erase", "await delete_key(self._settings, session, erased_at)", "None"),),
        (KEYS + "test_a_replay_meets_ciphertext_without_a_key_and_gives_the_same",),
    ),
    Mutant(
        "a-key-that-came-back-is-not-told",
        "an erasure takes the key of a session that was erased before for the first one",
        (
            Edit(
                "waypost_worker.cli.erase.keys:delete_key",
                "erased_at is not None and before is not None and not before.erased",
                "False",
            ),
        ),
        (KEYS + "test_a_restored_older_key_store_is_noticed",),
    ),
    Mutant(
        "doctor-misses-keys-that-came-back",
        "doctor does not look for the keys of erased sessions",
        (
            Edit(
                "waypost_worker.cli.doctor.erased:_keys_that_came_back",
                "if not key.erased]",
                "if False]",
            ),
        ),
        (KEYS + "test_a_restored_older_key_store_is_noticed",),
    ),
)
