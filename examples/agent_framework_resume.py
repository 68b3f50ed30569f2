"""A workflow of the Microsoft Agent Framework that fails halfway and resumes from its checkpoint in Waypost.

Needs pip install 'waypost[agent-framework]', and a `waypost dev` that runs in the current directory. It calls
no model.
"""

import asyncio
from typing import Never

from agent_framework import Executor, Workflow, WorkflowBuilder, WorkflowContext, handler

from waypost.adapters import Backend
from waypost.adapters.agent_framework import WaypostCheckpointStorage


class Gather(Executor):
    """The first, expensive step."""

    @handler
    async def gather(self, topic: str, ctx: WorkflowContext[list[str]]) -> None:
        print("gathering", topic)
        await ctx.send_message([f"{topic}: source {number}" for number in (1, 2, 3)])


class Write(Executor):
    """The second step, which may fail."""

    def __init__(self, id: str, broken: bool) -> None:
        super().__init__(id=id)
        self.broken = broken

    @handler
    async def write(self, sources: list[str], ctx: WorkflowContext[Never, str]) -> None:
        if self.broken:
            raise ConnectionError("the machine went away")
        await ctx.yield_output(f"a report from {len(sources)} sources")


def workflow(storage: WaypostCheckpointStorage, *, broken: bool) -> Workflow:
    gather, write = Gather(id="gather"), Write(id="write", broken=broken)
    builder = WorkflowBuilder(name="report", start_executor=gather, checkpoint_storage=storage)
    return builder.add_edge(gather, write).build()


async def main() -> None:
    async with Backend() as backend:
        storage = WaypostCheckpointStorage(backend, "run-7")
        try:
            await workflow(storage, broken=True).run("whales")
        except ConnectionError as error:
            print("stopped:", error)
        latest = await storage.get_latest(workflow_name="report")
        assert latest is not None
        print("resuming from step", latest.iteration_count)
        events = await workflow(storage, broken=False).run(checkpoint_id=latest.checkpoint_id)
        print(events.get_outputs()[0])


asyncio.run(main())
