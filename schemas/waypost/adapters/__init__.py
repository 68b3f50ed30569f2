"""Connect agent frameworks, each behind an extra: ``langgraph``, ``openai_agents``, ``agent_framework``.

They share a :class:`Backend`: one publisher and one reader. May import the rest of the library, but not each other;
nothing imports them.
"""

from waypost.adapters.backend import Backend as Backend
from waypost.adapters.backend import SessionFullError as SessionFullError

__all__ = ["Backend", "SessionFullError"]
