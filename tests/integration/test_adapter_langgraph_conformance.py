"""LangGraph's public conformance suite for checkpointers, on real servers: all capabilities, all tests."""

from typing import Any

from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import Capability
from tests.integration.adapters import running_backend
from tests.support.deployment import Deployment

from waypost.adapters.langgraph import WaypostSaver

TESTS = {
    "put": 17,
    "put_writes": 10,
    "get_tuple": 10,
    "list": 16,
    "delete_thread": 5,
    "delete_for_runs": 7,
    "copy_thread": 8,
    "prune": 8,
}


async def test_all_81_tests_of_the_public_suite_pass(adapter_world: Deployment) -> None:
    failed: list[str] = []

    async def savers() -> Any:
        async with running_backend(adapter_world) as backend:
            yield WaypostSaver(backend)

    def note(capability: str, test: str, passed: bool, error: str | None) -> None:
        if not passed:
            failed.append(f"{capability} {test}\n{error}")

    progress = type("Progress", (), {"on_test_result": staticmethod(note)})()
    progress.on_capability_start = progress.on_capability_end = None
    report = await validate(checkpointer_test(name="WaypostSaver")(savers), progress=progress)
    assert not failed, "\n\n".join(failed)
    assert set(TESTS) == {capability.value for capability in Capability}
    assert {name: result.tests_passed for name, result in report.results.items()} == TESTS
    assert sum(TESTS.values()) == 81
