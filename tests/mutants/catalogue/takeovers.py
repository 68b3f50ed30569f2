"""Mutants of what is grouped when several partitions are taken over at the same time."""

from tests.mutants.mutant import Edit, Mutant

ACQUIRER = "waypost_worker.postgres.group_acquire:GroupAcquirer."
OFFSETS = "waypost_worker.kafka.list_offsets:"
CLAIMER = "waypost_worker.kafka.group_claim:GroupClaimer."
STORES = "tests/conformance/test_store_takeovers.py::"
SQL_TAKEOVERS = "tests/integration/test_postgres_takeovers.py::"
ASKED = "tests/unit/test_list_offsets.py::"
CLAIMED = "tests/unit/test_group_claim.py::"


def _in(file: str, *tests: str) -> tuple[str, ...]:
    return tuple(file + test for test in tests)


TAKEOVERS: tuple[Mutant, ...] = (
    Mutant(
        "takeover-gets-the-row-of-another",
        "an owner gets the row of another partition of its group",
        (
            Edit(
                ACQUIRER + "_acquired",
                'rows = {row["partition"]: row for row in found}',
                "rows = dict(zip(partitions, [*found[1:], *found[:1]], strict=True))",
            ),
        ),
        tests=_in(STORES, "test_each_gets_the_claim_of_its_own_partition"),
    ),
    Mutant(
        "takeover-gets-the-outbox-of-others",
        "the first owner of a group gets the outbox of all of its partitions",
        (Edit(ACQUIRER + "_acquired", "outbox[partition].append", "outbox[partitions[0]].append"),),
        tests=_in(STORES, "test_each_gets_the_claim_of_its_own_partition"),
    ),
    Mutant(
        "refused-takeover-takes-others-along",
        "all acquisitions of a group are refused with one of them",
        (Edit(ACQUIRER + "_acquire", "raise UndoneError(error) from error", "raise"),),
        tests=_in(STORES, "test_one_that_is_refused_changes_nothing_and_takes_nobody_along"),
    ),
    Mutant(
        "refused-takeover-counts",
        "an owner that is refused has raised the epoch of its partition",
        (
            Edit(
                ACQUIRER + "_acquired",
                "_check(rows[one.partition], one)",
                "await connection.execute('commit; begin'), _check(rows[one.partition], one)",
            ),
        ),
        tests=_in(STORES, "test_one_that_is_refused_changes_nothing_and_takes_nobody_along"),
    ),
    Mutant(
        "sql-takeover-waits-for-a-held-row",
        "a group waits for a row that another transaction holds, and holds the others up",
        (Edit("sql:acquire", "for no key update skip locked", "for no key update"),),
        tests=_in(SQL_TAKEOVERS, "test_a_row_that_another_transaction_holds_is_waited_for_alone"),
    ),
    Mutant(
        "first-of-a-takeover-waits-for-a-held-row",
        "an owner that comes first waits for a row that another transaction holds, and those after it wait as well",
        (Edit(ACQUIRER + "_acquired", "not wanted[0].waits", "len(group) > 1"),),
        tests=_in(SQL_TAKEOVERS, "test_the_first_one_does_not_hold_up_those_that_come_after_it"),
    ),
    Mutant(
        "held-row-is-given-up",
        "an owner whose partition's row was held when its group was acquired is not acquired alone",
        (Edit(ACQUIRER + "acquire", "except _HeldElsewhereError:", "except LookupError:"),),
        tests=_in(SQL_TAKEOVERS, "test_a_row_that_another_transaction_holds_is_waited_for_alone"),
    ),
    Mutant(
        "update-of-another-counts",
        "an owner that is fenced takes the update of another partition of its group for its own",
        (Edit(ACQUIRER + "_update", "found.get(update[0])", "next(iter(found.values()), None)"),),
        tests=_in(
            STORES,
            "test_producers_are_recorded_for_those_that_are_still_owners",
            "test_positions_are_saved_for_those_that_are_still_owners",
        ),
    ),
    Mutant(
        "fenced-update-takes-others-along",
        "all updates of a group fail with one of them",
        (
            Edit(
                ACQUIRER + "_update",
                "return [found.get(",
                "if len(found) < len(group): raise overtaken(group[0][0])\n    return [found.get(",
            ),
        ),
        tests=_in(STORES, "test_producers_are_recorded_for_those_that_are_still_owners"),
    ),
    Mutant(
        "two-updates-of-a-partition-in-a-group",
        "two owners of one partition record their producers in one statement, and both are told that it counts",
        (Edit(ACQUIRER + "_update", "if len(set(partitions)) < len(group):", "if False:"),),
        tests=_in(STORES, "test_of_two_owners_of_one_partition_only_one_records_its_producer"),
    ),
    Mutant(
        "updates-lock-rows-in-any-order",
        "a group of updates locks its partitions in the order in which their owners came",
        (Edit(ACQUIRER + "_update", "sorted(group, key=lambda update: update[0])", "group"),),
        tests=_in(SQL_TAKEOVERS, "test_groups_of_two_processes_never_wait_for_each_other_in_a_circle"),
    ),
    Mutant(
        "sql-saved-position-confirms-for-others",
        "save_position.sql drops outbox entries that another partition of the group confirmed",
        (Edit("sql:save_position", "and o.partition = owner.partition", ""),),
        tests=_in(STORES, "test_positions_are_saved_for_those_that_are_still_owners"),
    ),
    # Kafka.
    Mutant(
        "offset-of-another-partition",
        "an owner gets the offset of another partition of its group",
        (Edit(OFFSETS + "OffsetLookup._send", "for asked in group]", "for asked in reversed(group)]"),),
        tests=_in(ASKED, "test_questions_asked_together_go_in_one_request_for_each_broker"),
    ),
    Mutant(
        "partition-asked-for-twice-in-a-request",
        "the first and the last offset of a partition are asked for in one request, and only one of them is answered",
        (Edit(OFFSETS + "_requests", "if partition not in one", "if True"),),
        tests=_in(ASKED, "test_beginning_and_end_of_a_partition_are_asked_for_in_two_requests"),
    ),
    Mutant(
        "offsets-refused-for-all",
        "an error of one partition fails the whole request",
        (
            Edit(
                OFFSETS + "OffsetLookup._send",
                "    return [",
                "    for one in found.values():\n        if not isinstance(one, int): raise one\n    return [",
            ),
        ),
        tests=_in(ASKED, "test_one_that_is_refused_takes_nobody_along"),
    ),
    Mutant(
        "coordinator-of-another-id",
        "an owner gets the coordinator of another transactional id of its group",
        (
            Edit(
                CLAIMER + "_find",
                "for one in transactional_ids]",
                "for one in reversed(transactional_ids)]",
            ),
        ),
        tests=_in(CLAIMED, "test_ids_that_are_claimed_together_are_looked_up_in_one_request"),
    ),
    Mutant(
        "coordinator-error-for-all",
        "an error of one transactional id fails the whole request",
        (
            Edit(
                CLAIMER + "_find",
                "found[key] = for_code(error_code)(key) if error_code else node",
                "if error_code: raise for_code(error_code)(key)\n        found[key] = node",
            ),
        ),
        tests=_in(CLAIMED, "test_each_id_has_its_own_error"),
    ),
    Mutant(
        "fence-of-another-id",
        "an owner gets the producer epoch of another partition of its group",
        (
            Edit(
                CLAIMER + "_claim",
                "for one in transactional_ids)",
                "for one in sorted(transactional_ids, reverse=True))",
            ),
        ),
        tests=_in(CLAIMED, "test_each_id_has_its_own_error"),
    ),
    Mutant(
        "claim-error-for-all",
        "an error of one claim fails those of all others at the same broker",
        (Edit(CLAIMER + "_claim", "return_exceptions=True", "return_exceptions=False"),),
        tests=_in(CLAIMED, "test_each_id_has_its_own_error"),
    ),
)
