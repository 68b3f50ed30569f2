"""Agent frameworks on Waypost, each behind an extra: ``langgraph``, ``openai_agents``, ``agent_framework``.

They share a :class:`Backend`, one publisher and one reader. Nothing outside this package imports it.
"""

from waypost.adapters.backend import Backend as Backend
from waypost.adapters.backend import SessionFullError as SessionFullError

__all__ = ["Backend", "SessionFullError"]
