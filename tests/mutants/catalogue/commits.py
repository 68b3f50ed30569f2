"""Mutants of group commit on the real Postgres and of group append on the real Kafka, for conformance and integration
tests to catch.
"""

from tests.mutants.mutant import Edit, Mutant

GROUP = "sql:commit_group"
COMMITTER = "waypost_worker.postgres.group_commit:GroupCommitter."
GROUPS = "tests/conformance/test_store_groups.py::"
APPENDS = "tests/integration/test_group_append.py::"
SQL_GROUPS = "tests/integration/test_postgres_groups.py::"
FORMS = "waypost_worker.postgres.statements:StatementForms."
BATCHES = "tests/conformance/test_store_batches.py::"


def _in(file: str, *tests: str) -> tuple[str, ...]:
    return tuple(file + test for test in tests)


COMMITS: tuple[Mutant, ...] = (
    Mutant(
        "sql-group-commit-without-epoch",
        "the compare-and-set in commit_group.sql looks at offset and producer only",
        (Edit(GROUP, "and p.epoch = b.epoch", "and b.epoch is not null"),),
        tests=_in(GROUPS, "test_a_fenced_batch_changes_nothing_and_the_others_count"),
    ),
    Mutant(
        "sql-group-commit-without-offset",
        "the compare-and-set in commit_group.sql looks at epoch and producer only",
        (Edit(GROUP, "and p.next_offset = b.expected_offset", "and b.expected_offset is not null"),),
        tests=_in(GROUPS, "test_a_batch_at_another_offset_or_producer_changes_nothing_in_a_group"),
    ),
    Mutant(
        "sql-group-commit-without-producer",
        "the compare-and-set in commit_group.sql looks at epoch and offset only",
        (
            Edit(GROUP, "and p.producer_id is not distinct from b.producer_id", ""),
            Edit(GROUP, "and p.producer_epoch is not distinct from b.producer_epoch", ""),
        ),
        tests=_in(GROUPS, "test_a_batch_at_another_offset_or_producer_changes_nothing_in_a_group"),
    ),
    *(
        Mutant(
            f"sql-group-takes-{part}-along",
            f"partitions that pass take the {part} rows of those along that failed",
            (Edit(GROUP, condition, "where true"),),
            tests=_in(GROUPS, "test_a_fenced_batch_changes_nothing_and_the_others_count"),
        )
        for part, condition in (
            ("dropped", "where d.partition = any (passed.partitions)"),
            ("put", "where p.partition = any (p.passed)"),
            ("pinned", "where p.partition = any (passed.partitions)"),
            ("touched", "where t.partition = any (passed.partitions)\n    on conflict"),
            ("forgotten", "where f.partition = any (passed.partitions)"),
            ("remembered", "where t.partition = any (passed.partitions)\n)\n\nselect"),
            ("refused", "where t.partition = any (passed.partitions)\n),\n-- :rare"),
        )
    ),
    Mutant(
        "sql-group-confirms-for-others",
        "commit_group.sql drops outbox entries that another partition of the group confirmed",
        (
            Edit(
                GROUP,
                "where o.partition = owner.partition\n      and o.last_offset >",
                "where o.last_offset >",
            ),
        ),
        tests=_in(GROUPS, "test_confirmed_entries_of_each_partition_are_dropped_in_a_group"),
    ),
    Mutant(
        "group-reply-of-another-partition",
        "the places that a group's reply names are given to the wrong partitions",
        (
            Edit(
                COMMITTER + "_commit_several",
                '{row["partition"]: row["place"] for row in rows}',
                '{row["partition"]: other["place"] for row, other in zip(rows, rows[::-1], strict=True)}',
            ),
        ),
        tests=_in(GROUPS, "test_each_owner_commits_on_where_its_group_left_its_own_partition"),
    ),
    Mutant(
        "group-fence-not-noticed",
        "that a group's reply does not name a partition is taken for success",
        (
            Edit(
                COMMITTER + "_run",
                "places.get(part.partition) or overtaken(part.partition)",
                "places.get(part.partition, (0, 0))",
            ),
        ),
        tests=_in(GROUPS, "test_a_fenced_batch_changes_nothing_and_the_others_count"),
    ),
    Mutant(
        "group-fenced-as-a-whole",
        "if one member of a group is fenced, all are told that they are",
        (
            Edit(
                COMMITTER + "_run",
                "places.get(part.partition) or overtaken(part.partition)",
                "(len(places) == len(parts) and places[part.partition]) or overtaken(part.partition)",
            ),
        ),
        tests=_in(GROUPS, "test_a_fenced_batch_changes_nothing_and_the_others_count"),
    ),
    Mutant(
        "group-rows-locked-in-any-order",
        "a group locks its partitions in the order in which their owners came",
        (
            Edit(
                COMMITTER + "_run",
                "sorted(parts, key=lambda part: part.partition)",
                "list(parts)",
            ),
        ),
        tests=_in(SQL_GROUPS, "test_groups_of_two_processes_never_wait_for_each_other_in_a_circle"),
    ),
    Mutant(
        "group-repeated-in-doubt",
        "a group whose connection was lost is repeated one by one",
        (
            Edit(
                "waypost_worker.postgres.group_commit:run_together",
                'if getattr(error, "severity_en", None) != "ERROR":',
                "if False:",
            ),
        ),
        tests=_in(
            SQL_GROUPS, "test_after_a_lost_connection_all_of_the_group_is_in_doubt_and_nothing_is_repeated"
        ),
    ),
    Mutant(
        "group-fails-for-one-bad-batch",
        "a group that Postgres rolled back is not repeated one by one",
        (
            Edit(
                "waypost_worker.partition.grouping:Grouper.submit",
                "except UndoneError:",
                "except LookupError:",
            ),
        ),
        tests=_in(
            SQL_GROUPS, "test_a_batch_that_takes_too_long_for_the_server_fails_alone_and_names_the_limit"
        ),
    ),
    Mutant(
        "failing-batch-joins-groups-again",
        "a partition whose commit failed goes in a group again, and has it rolled back again",
        (Edit(COMMITTER + "commit", "self._failed.add(part.partition)", "pass"),),
        tests=_in(SQL_GROUPS, "test_a_partition_whose_commit_failed_goes_alone_until_one_counts"),
    ),
    Mutant(
        "slow-group-blames-everybody",
        "each batch of a group that took too long is held to be too large",
        (Edit(COMMITTER + "_run", "in_group(error) for", "error for"),),
        tests=_in(
            SQL_GROUPS,
            "test_a_group_that_takes_too_long_for_the_worker_blames_nobody_until_each_was_tried_alone",
        ),
    ),
    Mutant(
        "partition-twice-in-a-group",
        "two batches of one partition go in one statement, and both are told that they count",
        (
            Edit(
                "waypost_worker.postgres.rows:_merged",
                "if len({part.partition for part in parts}) < len(parts):",
                "if False:",
            ),
        ),
        tests=_in(GROUPS, "test_of_two_batches_of_one_partition_in_a_group_only_one_counts"),
    ),
    Mutant(
        "shared-session-in-a-group",
        "rows of a session that two partitions have are written for whichever partition came last",
        (
            Edit(
                "waypost_worker.postgres.rows:_merged", "if not homes.keys().isdisjoint(named):", "if False:"
            ),
        ),
        tests=_in(SQL_GROUPS, "test_partitions_with_a_session_in_common_are_committed_one_by_one"),
    ),
    Mutant(
        "append-error-for-all",
        "an error of one partition in a Produce request is taken for the answer to all",
        (
            Edit(
                "waypost_worker.kafka.produce:ProduceGroup.outcomes",
                'answers.get(batch.partition, NotSentError("the broker did not answer for this partition"))',
                "max(answers.values(), key=lambda answer: answer.error_code)",
            ),
        ),
        tests=_in(APPENDS, "test_each_partition_of_a_request_is_judged_by_itself"),
    ),
    Mutant(
        "short-commit-of-a-batch-with-drops",
        "the short form of a commit is taken for any batch, with drops or without",
        (Edit(FORMS + "choose", "if all(one in _EMPTY for one in self._left_out(parameters)):", "if True:"),),
        tests=_in(BATCHES, "test_dropped_ones_are_gone_and_their_number_may_come_again"),
    ),
    Mutant(
        "short-commit-if-a-part-is-empty",
        "the short form of a commit is taken as soon as one of the parts that it leaves out has nothing to do",
        (Edit(FORMS + "choose", "if all(", "if any("),),
        tests=("tests/unit/test_statement_forms.py",),
    ),
    Mutant(
        "short-commit-with-values-of-other-parameters",
        "the short form of a commit gets the first parameters of the whole one instead of its own",
        (Edit(FORMS + "choose", "self._kept(parameters)", "parameters[: len(self._kept(parameters))]"),),
        tests=("tests/unit/test_statement_forms.py",),
    ),
    Mutant(
        "short-group-though-rejections-make-room",
        "the short form of a group is taken though rejected commands have to make room",
        (
            Edit(
                "waypost_worker.postgres.rows:group_parameters",
                "_array(rejected_below) if any(rejected_below) else _NOTHING",
                "_NOTHING",
            ),
        ),
        tests=_in(BATCHES, "test_rejected_commands_make_room_for_newer_ones"),
    ),
    Mutant(
        "erasure-in-a-group-without-limit-forgets-nothing",
        "a group in which no rejected commands make room deletes none of an erased session either",
        (Edit(GROUP, "coalesce(b.rejected_below, 0) as rejected_below", "b.rejected_below"),),
        tests=("tests/conformance/test_store_erasure.py",),
    ),
)
