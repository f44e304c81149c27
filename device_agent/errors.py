"""What the agent says no to.

::

    AgentError            one clear line for the person at the terminal
    └── Refusal           the same as a JSON-RPC error with a code of ``protocol``, for the host
    ConnectionLost        nobody is left to be told anything
"""

from __future__ import annotations


class AgentError(Exception):
    """Something that is not a bug: the text says what was wrong, the value, and what is allowed."""


class Refusal(AgentError):
    """A request that is answered with the JSON-RPC error ``code``."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class ConnectionLost(Exception):
    """The host is gone, or does not listen any more."""
