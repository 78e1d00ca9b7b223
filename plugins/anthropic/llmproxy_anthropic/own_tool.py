"""
A tool of our own making, for what Anthropic's protocol says otherwise than the client's.

An older model gives an answer in a JSON Schema only as the input of a tool that it must call. Its name tells what it is
when the model calls it: a dialect remembers nothing of the request when it reads the answer.
"""

from __future__ import annotations

ANSWER = "llmproxy_structured_answer"


def is_answer(name: str) -> bool:
    """Whether a call of *name* is the answer itself."""
    return name == ANSWER


def answer_text(arguments: bytes) -> str:
    """The answer as text."""
    return arguments.decode()
