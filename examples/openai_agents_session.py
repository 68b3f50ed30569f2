"""A conversation of the OpenAI Agents SDK that lives in Waypost.

Needs pip install 'waypost[openai-agents]', and a `waypost dev` that runs in the current directory. The model
is a stand-in, so no key is needed.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from agents import Agent, Model, ModelResponse, Runner, Usage, set_tracing_disabled
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

from waypost.adapters import Backend
from waypost.adapters.openai_agents import WaypostSession


class Counting(Model):
    """Says how many messages it was shown."""

    async def get_response(self, system_instructions: Any, input: Any, *_: Any, **__: Any) -> ModelResponse:
        text = ResponseOutputText(text=f"I see {len(input)} messages", type="output_text", annotations=[])
        message = ResponseOutputMessage(
            id="m", content=[text], role="assistant", status="completed", type="message"
        )
        return ModelResponse(output=[message], usage=Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        raise NotImplementedError


async def main() -> None:
    set_tracing_disabled(True)
    agent = Agent(name="counter", model=Counting())
    async with Backend() as backend:
        for question in ("hello", "and now?", "still there?"):
            session = WaypostSession("user-7", backend)  # a new one each time: nothing is in memory
            answer = await Runner.run(agent, question, session=session)
            print(question, "->", answer.final_output)
        session = WaypostSession("user-7", backend)
        await session.pop_item()
        print("items left:", len(await session.get_items()), "the last two:", len(await session.get_items(2)))
        await session.clear_session()


asyncio.run(main())
