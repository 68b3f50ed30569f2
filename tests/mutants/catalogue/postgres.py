"""Mutants of the ports on Postgres, for conformance and integration tests to catch."""

from tests.mutants.mutant import Edit, Mutant

COMMIT = "sql:commit"
COMMITTER = "waypost_worker.postgres.group_commit:GroupCommitter."
STORE = "tests/conformance/test_store.py::"
SWITCHED = "tests/integration/test_postgres_switched.py::"
SHARDS = "tests/integration/test_shards_guard.py::"
ACQUIRER = "waypost_worker.postgres.group_acquire:GroupAcquirer."


def _in(file: str, *tests: str) -> tuple[str, ...]:
    return tuple(file + test for test in tests)


POSTGRES: tuple[Mutant, ...] = (
    Mutant(
        "sql-commit-without-epoch",
        "the compare-and-set in commit.sql looks at the offset only",
        (Edit(COMMIT, "and epoch = $3", "and $3::bigint is not null"),),
        tests=_in(STORE, "test_a_batch_of_an_older_epoch_changes_nothing"),
    ),
    Mutant(
        "sql-commit-without-offset",
        "the compare-and-set in commit.sql looks at the epoch only",
        (Edit(COMMIT, "and next_offset = $4", "and $4::bigint is not null"),),
        tests=_in(STORE, "test_a_batch_at_another_offset_changes_nothing"),
    ),
    *(
        Mutant(
            f"sql-{name}-without-producer".replace("_", "-"),
            f"{name}.sql does not look at the recorded producer",
            (
                Edit(
                    f"sql:{name}",
                    f"and {row}producer_id is not distinct from {first}",
                    f"and {first} is not distinct from {first}",
                ),
                Edit(
                    f"sql:{name}",
                    f"and {row}producer_epoch is not distinct from {second}",
                    f"and {second} is not distinct from {second}",
                ),
            ),
            tests=_in(STORE, "test_of_two_owners_with_one_epoch_only_one_records_its_producer"),
        )
        for name, row, first, second in (
            ("commit", "", "$62::bigint", "$63::integer"),
            ("save_position", "p.", "s.producer_id", "s.producer_epoch"),
            ("record_claim", "p.", "c.found_id", "c.found_epoch"),
        )
    ),
    Mutant(
        "sql-commit-of-rows-without-ownership",
        "checkpoints are written also where the compare-and-set failed",
        (Edit(COMMIT, "from owner\n        -- rare:\n", "-- rare:\n"),),
        tests=_in(STORE, "test_a_batch_of_an_older_epoch_changes_nothing"),
    ),
    Mutant(
        "sql-epoch-not-raised",
        "acquire.sql leaves the epoch as it is",
        (Edit("sql:acquire", "set epoch = p.epoch + 1", "set epoch = p.epoch"),),
        tests=_in(STORE, "test_every_claim_raises_the_epoch_of_its_partition_alone"),
    ),
    Mutant(
        "sql-partition-count-unchecked",
        "acquire.sql finds no other partition count",
        (
            Edit("sql:acquire", "(select min(o.partitions) from waypost.partitions o)", "null::integer"),
            Edit("sql:acquire", "(select max(o.partitions) from waypost.partitions o)", "null::integer"),
        ),
        tests=_in(STORE, "test_another_partition_count_is_refused_and_the_owner_stays"),
    ),
    Mutant(
        "sql-position-without-epoch",
        "save_position.sql lets any owner save a results position",
        (Edit("sql:save_position", "and p.epoch = s.epoch", "and s.epoch is not null"),),
        tests=_in(STORE, "test_only_the_owner_records_a_producer_or_saves_a_position"),
    ),
    Mutant(
        "sql-position-of-a-twin",
        "save_position.sql lets an owner whose epoch came again save over its twin",
        (
            Edit(
                "sql:save_position",
                "= coalesce(s.next_offset, p.next_offset)",
                "= p.next_offset + 0 * coalesce(s.next_offset, 0)",
            ),
        ),
        tests=_in(STORE, "test_an_owner_whose_epoch_came_again_saves_no_results_position"),
    ),
    Mutant(
        "sql-claim-without-epoch",
        "record_claim.sql lets any owner record its producer id",
        (Edit("sql:record_claim", "and p.epoch = c.epoch", "and c.epoch is not null"),),
        tests=_in(STORE, "test_only_the_owner_records_a_producer_or_saves_a_position"),
    ),
    Mutant(
        "sql-outbox-dropped-early",
        "commit.sql drops an outbox entry once its first result is confirmed",
        (Edit(COMMIT, "and o.last_offset <= $7", "and o.first_offset <= $7"),),
        tests=_in(STORE, "test_an_entry_of_which_only_the_last_result_is_missing_stays_whole"),
    ),
    Mutant(
        "sql-saved-position-drops-early",
        "save_position.sql drops an outbox entry once its first result is confirmed",
        (
            Edit(
                "sql:save_position",
                "and o.last_offset <= owner.emitted",
                "and o.first_offset <= owner.emitted",
            ),
        ),
        tests=_in(STORE, "test_a_saved_position_leaves_an_entry_of_which_the_last_result_is_missing"),
    ),
    Mutant(
        "sql-outbox-out-of-order",
        "the outbox is read in no particular order",
        (Edit("sql:read_outbox", "partition, first_offset\n", "partition, first_offset desc\n"),),
        tests=_in(STORE, "test_before_the_confirmation_every_entry_is_there_in_order"),
    ),
    Mutant(
        "sql-load-without-the-fence",
        "load.sql gives sessions to an owner that was overtaken",
        (Edit("sql:load", "where $3::bigint is null", "where true or $3::bigint is null"),),
        tests=_in(STORE, "test_an_owner_that_was_overtaken_reads_nothing"),
    ),
    Mutant(
        "sql-contents-without-the-fence",
        "contents.sql gives data to an owner that was overtaken",
        (Edit("sql:contents", "where $3::bigint is null", "where true or $3::bigint is null"),),
        tests=_in(STORE, "test_an_owner_that_was_overtaken_reads_nothing"),
    ),
    Mutant(
        "fence-in-postgres-not-noticed",
        "that a statement did nothing is taken for success",
        (
            Edit(ACQUIRER + "_update", "or overtaken(update[0])", "or (0, 1)"),
            Edit(COMMITTER + "_commit_one", "if place is None:", "if False:"),
        ),
        tests=_in(STORE, "test_a_batch_that_is_committed_again_counts_once"),
    ),
    Mutant(
        "outbox-read-before-the-lock",
        "an owner reads the outbox before it has the lock of its partition's row",
        (
            Edit(
                ACQUIRER + "_acquired",
                "found = await connection.fetch(",
                "early = await read_outbox.fetch(partitions)\n        found = await connection.fetch(",
            ),
            Edit(ACQUIRER + "_acquired", "in await read_outbox.fetch(list(rows)):", "in early:"),
        ),
        tests=(
            "tests/integration/test_postgres_store.py::"
            "test_what_an_older_owner_commits_while_its_heir_waits_for_the_row_is_in_the_heir_s_outbox",
        ),
    ),
    Mutant(
        "place-of-a-database-unchecked",
        "an owner acquires its partition in whatever shard it is given",
        (Edit(ACQUIRER + "_acquired", "_check(rows[one.partition], one)", "pass"),),
        tests=_in(SHARDS, "test_an_owner_refuses_a_database_that_is_another_shard"),
    ),
    Mutant(
        "same-database-twice",
        "a new set may name one database twice",
        (Edit("waypost_worker.postgres.shards:check_distinct", "if not free:", "if False:"),),
        tests=_in(SHARDS, "test_new_databases_that_are_one_are_found_whatever_their_names"),
    ),
    Mutant(
        "set-recorded-before-all-answer",
        "a new set is recorded as soon as one of its databases answers",
        (Edit("waypost_worker.postgres.shards:Shards._begin", "raise ConnectionError(_WAITS)", "return"),),
        tests=_in(SHARDS, "test_a_new_set_is_recorded_only_when_all_of_it_answers"),
    ),
    Mutant(
        "pool-stays-with-a-former-primary",
        "connections are kept after a server said that it takes no writes",
        (
            Edit(
                "waypost_worker.postgres.errors:owner_errors",
                "if is_outdated(said):\n            await pool.expire_connections()",
                "if is_outdated(said):\n            pass",
            ),
        ),
        tests=_in(SWITCHED, "test_a_store_follows_after_one_refused_write"),
    ),
    Mutant(
        "read-only-server-counts-as-well",
        "a server that answers and can't be written passes the check",
        (
            Edit(
                "waypost_worker.postgres.shards:Shards.check",
                "newer=True, writable=True",
                "newer=True",
            ),
        ),
        tests=_in(
            SWITCHED,
            "test_a_check_finds_a_server_that_became_read_only_and_the_next_one_its_successor",
        ),
    ),
    Mutant(
        "old-time-limits-kept",
        "after a time limit was too short, the connections that have it are used again",
        (
            Edit(
                "waypost_worker.postgres.store:PostgresStore.acquire",
                "await self._pool.expire_connections()",
                "pass",
            ),
        ),
        tests=(
            "tests/integration/test_postgres_store.py::"
            "test_a_commit_that_takes_too_long_names_the_limit_and_works_once_it_is_raised",
        ),
    ),
)
