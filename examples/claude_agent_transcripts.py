"""Transcripts of the Claude Agent SDK that live in Waypost.

Needs pip install 'waypost[claude-agent-sdk]', and a `waypost dev` that runs in the current directory. It
starts no agent. To run one, pass ClaudeAgentOptions(session_store=store), and the SDK calls append as this
program does.
"""

import asyncio
import tempfile
from uuid import uuid4

from claude_agent_sdk import (
    get_session_messages_from_store,
    list_sessions_from_store,
    project_key_for_directory,
    rename_session_via_store,
)
from claude_agent_sdk.types import SessionKey, SessionStoreEntry

from waypost.adapters import Backend
from waypost.adapters.claude_agent_sdk import WaypostSessionStore


def turn(session_id: str, parent: str | None, role: str, text: str) -> SessionStoreEntry:
    """An entry as the SDK mirrors it."""
    return {  # type: ignore[typeddict-unknown-key]
        "type": role,
        "uuid": str(uuid4()),
        "parentUuid": parent,
        "sessionId": session_id,
        "message": {"role": role, "content": text},
    }


async def main() -> None:
    session_id = str(uuid4())
    key: SessionKey = {"project_key": project_key_for_directory("."), "session_id": session_id}
    with tempfile.TemporaryDirectory() as spool:  # a real agent uses a directory that stays
        async with Backend(publisher_options={"spool": spool}) as backend:
            store = WaypostSessionStore(backend)
            question = turn(session_id, None, "user", "How many whales are there?")
            answer = turn(session_id, question["uuid"], "assistant", "About 90 species.")
            await store.append(key, [question, answer])
            await store.append(key, [answer])  # sent again: counts once
            await rename_session_via_store(store, session_id, "whales", ".")
            for session in await list_sessions_from_store(store, "."):
                print("session:", session.summary, "- first prompt:", session.first_prompt)
            for message in await get_session_messages_from_store(store, session_id, "."):
                print(f"{message.type}:", message.message["content"])
            await store.delete(key)
            print("sessions left:", len(await store.list_sessions(key["project_key"])))


asyncio.run(main())
