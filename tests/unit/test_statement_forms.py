"""The short form of a commit is taken if, and only if, the batch has nothing for the parts that it leaves out."""

import re
from dataclasses import replace
from typing import Any

import pytest
from tests.conformance.stores import MOMENT, entry, puts

from waypost.model.authority import Authority
from waypost.model.index import SeenCommand, Session
from waypost.model.retention import RetentionPolicy
from waypost_worker.partition.ports import Changes, Commit, RejectedRow, RejectedWindow, StoredOutbox
from waypost_worker.postgres.rows import PartitionCommit, commit_parameters, group_parameters
from waypost_worker.postgres.statements import StatementForms

COMMITS = ("commit", "commit_group")
RARE_PARTS = ["dropped", "pinned", "forgotten", "outdated", "erased", "refused"]

OFTEN = {
    "nothing": Changes(),
    "puts": puts("s", [entry(1, pinned=True), entry(2)], metadata=b'{"a":1}'),
    "a pin of a row that is put": replace(puts("s", [entry(1)]), pins={("s", 1): True}),
    "a command id": Changes(
        sessions={"s": (Session.restore("s", 1, None, [], [SeenCommand(3, "id", 1)]), MOMENT)},
        begun={"s": MOMENT - 1},
        remembered=[("s", SeenCommand(3, "id", 1))],
    ),
    "a policy of a session": Changes(sessions={"s": (Session("s", 1, RetentionPolicy(7)), MOMENT)}),
    "settings of the partition": Changes(
        default_policy=RetentionPolicy(7),
        partition_commands=["id"],
        rejected_window=RejectedWindow(3, ((4, 2),), 9),
        authority=Authority(),
    ),
}
REJECTED = RejectedRow(5, "s", "id", "c", "m", b"k", b"v", [("h", b"v")], MOMENT)
RARELY = {
    "dropped": Changes(drops={("s", 1): None}),
    "pinned": Changes(pins={("s", 1): False}),
    "forgotten": Changes(sessions={"s": (Session("s", 1), MOMENT)}, forgotten={"s": 7}),
    "outdated": Changes(rejected_below=1),
    "erased": Changes(erased={"s": 0}),
    "refused": Changes(rejected=[REJECTED]),
}


def values_of(name: str, changes: Changes) -> list[Any]:
    """The parameters of the whole statement, for one partition that changes so, and in a group for another, too."""
    commit = Commit(1, 0, 10, b"anchor", -1, 0, StoredOutbox(0, 9, b"owed"), changes)
    parts = [
        PartitionCommit(0, (0, 1), -1, (7, 0), replace(commit, changes=Changes())),
        PartitionCommit(3, None, -1, (None, None), commit),
    ]
    if name == "commit_group":
        return group_parameters(parts)
    return [3, None, *commit_parameters(commit), 7, 0]


def rare(text: str) -> str:
    return "".join(re.findall(r"-- rare:\n(.*?)-- :rare\n", text, re.DOTALL))


def numbers(sql: str) -> set[int]:
    return {int(number) for number in re.findall(r"\$(\d+)", re.sub("--.*", "", sql))}


@pytest.mark.parametrize("name", COMMITS)
@pytest.mark.parametrize("case", OFTEN)
def test_a_batch_with_nothing_rare_takes_the_short_form(name: str, case: str) -> None:
    forms = StatementForms(name)
    values = values_of(name, OFTEN[case])
    sql, parameters = forms.choose(values)
    assert sql == forms.short
    assert len(parameters) == len(numbers(sql)) < len(values) == len(numbers(forms.whole))


@pytest.mark.parametrize("name", COMMITS)
@pytest.mark.parametrize("part", RARE_PARTS)
def test_a_batch_with_anything_rare_takes_the_whole_statement(name: str, part: str) -> None:
    forms = StatementForms(name)
    values = values_of(name, RARELY[part])
    assert forms.choose(values) == (forms.whole, values)


@pytest.mark.parametrize("name", COMMITS)
def test_every_rare_part_reads_something_that_nothing_else_reads(name: str) -> None:
    """So what it is given decides, also for a part that is added later."""
    whole = StatementForms(name).whole
    parts = re.findall(r"^(\w+) as (?:materialized )?\(\n(.*?)^\)", whole, re.MULTILINE | re.DOTALL)
    of_rare = [part for part, text in parts if f"\n{part} as (\n{text}" in f"\n{rare(whole)}"]
    assert of_rare == RARE_PARTS
    often = numbers(re.sub(r"-- rare:\n.*?-- :rare\n", "", whole, flags=re.DOTALL))
    left_out = numbers(rare(whole)) - often
    read = {part: numbers(text) & left_out for part, text in parts if part in RARE_PARTS}
    if name == "commit_group":  # its parameter is read in "owner", in a line that is rare
        assert read.pop("outdated") == set()
        assert "owner.rejected_below" in dict(parts)["outdated"]
    assert all(read.values())


@pytest.mark.parametrize("name", COMMITS)
def test_the_short_form_is_the_whole_statement_without_its_rare_lines(name: str) -> None:
    forms = StatementForms(name)
    assert forms.whole.count("-- rare:\n") == forms.whole.count("-- :rare\n") > 1
    without = re.sub(r"-- rare:\n.*?-- :rare\n", "", forms.whole, flags=re.DOTALL)
    words = re.sub(r"--.*", "", without).split()
    numbered = {f"${at}": f"${number}" for at, number in enumerate(sorted(numbers(without)), 1)}
    named, short = forms.short.split("\n", 1)
    assert named == f"-- {name}.sql without its rare parts"  # what operators see of it
    assert re.sub(r"\$\d+", lambda match: numbered[match[0]], short).split() == words


@pytest.mark.parametrize("name", COMMITS)
def test_each_parameter_goes_where_its_value_belongs(name: str) -> None:
    forms = StatementForms(name)
    empties = [at for at, one in enumerate(values_of(name, Changes()), 1) if one in ("{}", [], 0)]
    left_out = {number for number in numbers(rare(forms.whole)) if number in empties}
    values = [
        "{}" if number in left_out else f"value of ${number}" for number in sorted(numbers(forms.whole))
    ]
    sql, parameters = forms.choose(values)
    assert sql == forms.short
    assert [f"value of ${number}" for number in sorted(numbers(forms.whole) - left_out)] == list(parameters)


@pytest.mark.parametrize("name", COMMITS)
def test_any_schema_is_the_schema_of_both_forms(name: str) -> None:
    forms = StatementForms(name, "elsewhere")
    assert "waypost." not in re.sub("--.*", "", forms.whole) + forms.short
    assert forms.short.count('"elsewhere".') == StatementForms(name).short.count("waypost.")
