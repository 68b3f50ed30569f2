"""Connect agent frameworks, each in a module and behind its own extra.

:class:`waypost.adapters.langgraph.WaypostSaver` keeps LangGraph's threads,
:class:`waypost.adapters.openai_agents.WaypostSession` the conversations of the OpenAI Agents SDK,
:class:`waypost.adapters.agent_framework.WaypostCheckpointStorage` workflows of the Microsoft Agent Framework,
:class:`waypost.adapters.claude_agent_sdk.WaypostSessionStore` transcripts of the Claude Agent SDK, and
:class:`waypost.adapters.google_adk.WaypostSessionService` sessions of Google's ADK. They share a :class:`Backend`: one
publisher and one reader. May import the rest of the library, but not each other; nothing imports them.

:mod:`waypost.adapters.plain` is for programs that only look at what they store.
"""

from waypost.adapters.allowed_types import MissingValueError as MissingValueError
from waypost.adapters.allowed_types import TypeNotAllowedError as TypeNotAllowedError
from waypost.adapters.allowed_types import UnreadableValueError as UnreadableValueError
from waypost.adapters.backend import Backend as Backend
from waypost.adapters.backend import RejectedWriteError as RejectedWriteError
from waypost.adapters.backend import SessionFullError as SessionFullError
from waypost.adapters.records import POLICY as POLICY

__all__ = [
    "POLICY",
    "Backend",
    "MissingValueError",
    "RejectedWriteError",
    "SessionFullError",
    "TypeNotAllowedError",
    "UnreadableValueError",
]
