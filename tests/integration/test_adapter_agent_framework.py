"""Checkpoint storage of the Microsoft Agent Framework: the same as its own in memory, shared and bounded."""

import asyncio
import math
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Never

import pytest
from agent_framework import (
    Executor,
    FileCheckpointStorage,
    InMemoryCheckpointStorage,
    WorkflowBuilder,
    WorkflowCheckpoint,
    WorkflowCheckpointException,
    WorkflowContext,
    handler,
    response_handler,
)

from waypost.adapters import Backend, SessionFullError
from waypost.adapters.agent_framework import WaypostCheckpointStorage


@dataclass
class Draft:
    """State of the application, which JSON can't carry."""

    text: str
    marks: tuple[int, ...]


DRAFT = f"{Draft.__module__}:{Draft.__qualname__}"


def checkpoint(name: str = "flow", **fields: Any) -> WorkflowCheckpoint:
    return WorkflowCheckpoint(workflow_name=name, graph_signature_hash="h", **fields)


async def test_it_does_what_the_storage_in_memory_does(backend: Backend) -> None:
    seed = random.randrange(1_000_000)
    print("seed", seed)
    chance = random.Random(seed)
    ours, theirs = WaypostCheckpointStorage(backend, "twin"), InMemoryCheckpointStorage()
    saved = ["unknown", "un\0known"]
    for turn in range(50):
        what = chance.choice(("save", "save", "load", "delete", "list"))
        if what == "save":
            made = checkpoint(chance.choice("ab"), state={"turn": turn, "set": {1, 2}}, iteration_count=turn)
            assert await ours.save(made) == await theirs.save(made)
            saved.append(made.checkpoint_id)
        elif what == "load":
            wanted = chance.choice(saved)
            try:
                expected = await theirs.load(wanted)
            except WorkflowCheckpointException as error:
                said = str(error).replace("\0", r"\x00")  # our messages are printable
                with pytest.raises(WorkflowCheckpointException, match=re.escape(said)):
                    await ours.load(wanted)
            else:
                assert await ours.load(wanted) == expected
        elif what == "delete":
            wanted = chance.choice(saved)
            assert await ours.delete(wanted) == await theirs.delete(wanted)
        else:
            for name in ("a", "b", "none"):
                assert await ours.list_checkpoints(workflow_name=name) == await theirs.list_checkpoints(
                    workflow_name=name
                )
                ids = await ours.list_checkpoint_ids(workflow_name=name)
                assert ids == await theirs.list_checkpoint_ids(workflow_name=name)
                assert await ours.get_latest(workflow_name=name) == await theirs.get_latest(
                    workflow_name=name
                )


class Ask(Executor):
    """Asks a person, and remembers in a state of its own how often it was asked."""

    def __init__(self) -> None:
        super().__init__(id="ask")
        self.asked = 0

    @handler
    async def ask(self, text: str, ctx: WorkflowContext[Draft, str]) -> None:
        self.asked += 1
        await ctx.request_info(Draft(text, (1, 2)), bool)

    @response_handler
    async def answered(self, draft: Draft, approved: bool, ctx: WorkflowContext[Never, str]) -> None:
        await ctx.yield_output(f"{draft.text} {draft.marks} {approved} asked {self.asked}")

    async def on_checkpoint_save(self) -> dict[str, Any]:
        return {"asked": self.asked}

    async def on_checkpoint_restore(self, state: dict[str, Any]) -> None:
        self.asked = state["asked"]


async def test_a_workflow_that_waits_for_a_person_resumes_elsewhere(backend: Backend) -> None:
    def storage() -> WaypostCheckpointStorage:
        return WaypostCheckpointStorage(backend, "run", allowed_checkpoint_types=[DRAFT])

    def workflow() -> Any:
        return WorkflowBuilder(name="ask", start_executor=Ask(), checkpoint_storage=storage()).build()

    stopped = await workflow().run("a draft")
    (request,) = stopped.get_request_info_events()
    latest = await storage().get_latest(workflow_name="ask")
    assert latest is not None
    done = await workflow().run(responses={request.request_id: True}, checkpoint_id=latest.checkpoint_id)
    assert done.get_outputs() == ["a draft (1, 2) True asked 1"]


async def test_a_type_that_was_not_allowed_is_refused_when_it_is_saved(backend: Backend) -> None:
    storage = WaypostCheckpointStorage(backend, "types")
    with pytest.raises(WorkflowCheckpointException, match="Draft"):
        await storage.save(checkpoint(state={"draft": Draft("x", ())}))
    assert await storage.list_checkpoint_ids(workflow_name="flow") == []
    allowed = WaypostCheckpointStorage(backend, "types", allowed_checkpoint_types=[DRAFT])
    saved = await allowed.save(checkpoint(state={"draft": Draft("x", (3,))}))
    assert (await allowed.load(saved)).state == {"draft": Draft("x", (3,))}
    with pytest.raises(WorkflowCheckpointException, match="Draft"):
        await storage.load(saved)


def nested(levels: int) -> Any:
    value: Any = "end"
    for _ in range(levels):
        value = [value]
    return value


ODD: list[Any] = [
    {"score": float("inf"), "least": float("-inf")},
    {"count": 2**70, "debt": -(2**70)},
    {"tree": nested(150)},
    {"nul\0": "\0"},
    {1: "one", None: "none"},
]


@pytest.mark.parametrize("state", ODD, ids=lambda state: repr(state)[:20])
async def test_odd_values_are_kept_as_the_file_storage_keeps_them(
    backend: Backend, tmp_path: Path, state: Any
) -> None:
    ours, theirs = WaypostCheckpointStorage(backend, "odd"), FileCheckpointStorage(tmp_path)
    made = checkpoint(state=state)
    for storage in (ours, theirs):
        assert await storage.save(made) == made.checkpoint_id
    loaded = await ours.load(made.checkpoint_id)
    assert loaded == await theirs.load(made.checkpoint_id)
    assert [loaded] == await ours.list_checkpoints(workflow_name="flow")


async def test_half_characters_are_kept_which_the_file_storage_cannot_write(backend: Backend) -> None:
    storage = WaypostCheckpointStorage(backend, "half")
    made = checkpoint(state={"text": "half an emoji: \ud83d", "\ud83d": 1})
    assert await storage.load(await storage.save(made)) == made


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a\0b", r"contains U\+0000"),
        ("\ud83d", "contains a lone surrogate"),
        ("n" * 2000, "has 2000 characters"),
    ],
)
async def test_a_name_that_cannot_be_searched_for_is_an_error_that_names_it(
    backend: Backend, name: str, said: str
) -> None:
    storage = WaypostCheckpointStorage(backend, "names")
    with pytest.raises(WorkflowCheckpointException, match=f"can't be stored: the workflow's name {said}"):
        await storage.save(checkpoint(name))


class Scores(Executor):
    """Has a state that JSON can't carry; the framework goes on if a checkpoint can't be saved."""

    @handler
    async def score(self, text: str, ctx: WorkflowContext[Never, str]) -> None:
        ctx.set_state("score", float("nan"))
        await ctx.yield_output(text)


async def test_a_run_with_a_state_beyond_json_has_its_checkpoints(backend: Backend) -> None:
    storage = WaypostCheckpointStorage(backend, "nan")
    workflow = WorkflowBuilder(
        name="nan", start_executor=Scores(id="scores"), checkpoint_storage=storage
    ).build()
    await workflow.run("x")
    latest = await storage.get_latest(workflow_name="nan")
    assert latest is not None
    assert math.isnan(latest.state["score"])


async def test_a_state_deeper_than_the_stack_is_an_error(backend: Backend) -> None:
    storage = WaypostCheckpointStorage(backend, "deep")
    with pytest.raises(WorkflowCheckpointException, match="can't be stored: its state is nested too deeply"):
        await storage.save(checkpoint(state={"tree": nested(100_000)}))


async def test_saving_an_id_again_replaces_it(backend: Backend) -> None:
    storage = WaypostCheckpointStorage(backend, "again")
    for turn in (1, 2):
        await storage.save(checkpoint(checkpoint_id="same", state={"turn": turn}))
    assert (await storage.load("same")).state == {"turn": 2}
    assert len(await storage.list_checkpoints(workflow_name="flow")) == 1
    assert await storage.delete("same") is True
    assert await storage.list_checkpoint_ids(workflow_name="flow") == []
    assert await storage.delete("same") is False


async def test_one_of_many_deletes_returns_that_it_did_it(backend: Backend) -> None:
    storage = WaypostCheckpointStorage(backend, "deleted")
    await storage.save(checkpoint(checkpoint_id="x"))
    assert sorted(await asyncio.gather(*(storage.delete("x") for _ in range(6)))) == [False] * 5 + [True]


async def test_the_latest_is_the_one_saved_last_whatever_the_clocks_say(backend: Backend) -> None:
    storage = WaypostCheckpointStorage(backend, "clocks")
    await storage.save(checkpoint(checkpoint_id="first", timestamp="2026-11-24T10:00:00+00:00"))
    await storage.save(checkpoint(checkpoint_id="second", timestamp="2026-11-24T09:00:00+00:00"))
    latest = await storage.get_latest(workflow_name="flow")
    assert latest is not None
    assert latest.checkpoint_id == "second"


async def test_a_large_state_is_kept_and_deleted_whole(backend: Backend) -> None:
    storage = WaypostCheckpointStorage(backend, "large")
    made = checkpoint(state={"text": "x" * 1_500_000, "bytes": b"\0" * 1_000_000})
    await storage.save(made)
    assert await storage.load(made.checkpoint_id) == made
    assert await storage.delete(made.checkpoint_id)
    info = await backend._connection.reader.session_info("agent-framework/large")
    assert info is not None
    assert info.checkpoint_count == 0


async def test_keep_bounds_each_workflow(backend: Backend) -> None:
    storage = WaypostCheckpointStorage(backend, "long", keep=7)
    await storage.save(checkpoint("rare", checkpoint_id="rare"))
    for turn in range(128):
        await storage.save(checkpoint(checkpoint_id=str(turn)))
    found = await storage.list_checkpoint_ids(workflow_name="flow")
    assert 7 <= len(found) <= 7 + 64
    assert found == [str(turn) for turn in range(128 - len(found), 128)]
    assert await storage.list_checkpoint_ids(workflow_name="rare") == ["rare"]


async def test_a_full_scope_is_an_error_that_names_the_limit(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waypost.adapters.backend.FULL", 3)
    storage = WaypostCheckpointStorage(backend, "full", keep=None)
    for _ in range(3):
        await storage.save(checkpoint())
    with pytest.raises(SessionFullError):
        await storage.save(checkpoint())
    assert len(await storage.list_checkpoint_ids(workflow_name="flow")) == 3


def test_keep_must_keep_something(backend: Backend) -> None:
    with pytest.raises(ValueError, match="keep must be at least 1"):
        WaypostCheckpointStorage(backend, "s", keep=0)
