"""A session of Google's Agent Development Kit that lives in Waypost, and two writers of it.

Needs pip install 'waypost[google-adk]', and a `waypost dev` that runs in the current directory. The agent
calls no model, so no key is needed.
"""

import asyncio
from collections.abc import AsyncGenerator

from google.adk.agents import BaseAgent
from google.adk.agents.invocation_context import InvocationContext
from google.adk.errors import StaleSessionError
from google.adk.events import Event, EventActions
from google.adk.runners import Runner
from google.genai import types

from waypost.adapters import Backend
from waypost.adapters.google_adk import WaypostSessionService


class Counter(BaseAgent):
    """Says how many events it sees, and counts its turns for the user."""

    async def _run_async_impl(self, ctx: InvocationContext) -> AsyncGenerator[Event, None]:
        text = f"I see {len(ctx.session.events)} events"
        yield Event(
            author=self.name,
            invocation_id=ctx.invocation_id,
            content=types.Content(role="model", parts=[types.Part(text=text)]),
            actions=EventActions(state_delta={"user:turns": ctx.session.state.get("user:turns", 0) + 1}),
        )


async def main() -> None:
    async with Backend() as backend:
        service = WaypostSessionService(backend)
        session = await service.create_session(app_name="counter", user_id="user-7", session_id="trip")
        for question in ("hello", "and now?"):
            # A new runner each time, as in another process: nothing is in memory.
            runner = Runner(
                app_name="counter",
                agent=Counter(name="counter"),
                session_service=WaypostSessionService(backend),
            )
            message = types.Content(role="user", parts=[types.Part(text=question)])
            async for event in runner.run_async(user_id="user-7", session_id="trip", new_message=message):
                if event.content and event.content.parts:
                    print(question, "->", event.content.parts[0].text)
        try:
            await service.append_event(session, Event(author="user"))
        except StaleSessionError:
            print("this object is stale: the session has moved on")
        print(
            "turns of the user:",
            (await service.get_user_state(app_name="counter", user_id="user-7"))["turns"],
        )
        await service.delete_session(app_name="counter", user_id="user-7", session_id="trip")
        print("sessions left:", len((await service.list_sessions(app_name="counter")).sessions))


asyncio.run(main())
