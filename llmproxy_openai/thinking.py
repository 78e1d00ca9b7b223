"""Thinking in an assistant's message: whose it is, and where clients find it."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from llmproxy_core.chat import Part, ReasoningPart
from llmproxy_core.wire import Members, Wire
from llmproxy_openai.reasoning_details import read_details

REASONING_MEMBERS = ("reasoning_content", "reasoning")
"""De facto members for thinking, the more widespread first (DeepSeek, vLLM; Groq, OpenRouter)."""


def provider_of(member: str, wire: Wire) -> str | None:
    """Whose the thinking in *member* is. What `reasoning` holds nobody needs back, and some servers refuse it."""
    return wire.api.partition(".")[0] if member == REASONING_MEMBERS[0] else None


def thinking_member(member: str | None, provider: str | None, dialect: str, usual: str) -> str:
    """
    Where clients of *dialect* find what *provider* thought: *usual*, unless it came in a member of that protocol.

    `thinking` is a part of the content, and no other place is known where it is the usual one.
    """
    if member is None or usual == "thinking" or provider not in (None, dialect):
        return usual
    return member


def read_carried(members: Members, parts: Sequence[Part]) -> list[Part] | None:
    """The thinking of other providers; *parts* are their texts."""
    text = members.peek("reasoning_details")
    if text is None:
        return None
    thought = [part for part in parts if isinstance(part, ReasoningPart)]
    said = "".join(part.text for part in thought)
    found = read_details(text, thought[0].member if thought else None, said)
    if found is not None:
        members.raw("reasoning_details")
    return None if found is None else [*found]


def joined(content: Sequence[Part], wire: Wire) -> tuple[Part, ...]:
    """
    *content* with the thinking of other providers in one part each.

    A stream gave its text in pieces, and what its provider needs back in a part of its own after them; clients keep
    all of these parts as they came.
    """
    parts: list[Part] = []
    for part in content:
        is_mark = isinstance(part, ReasoningPart) and not part.text and (part.signature or part.encrypted)
        if not isinstance(part, ReasoningPart) or not is_mark or part.provider == wire.api.partition(".")[0]:
            parts.append(part)
            continue
        texts: list[str] = []
        while parts and isinstance(before := parts[-1], ReasoningPart) and _is_bare(before):
            texts.append(before.text)
            parts.pop()
        parts.append(attrs.evolve(part, text="".join(reversed(texts))) if texts else part)
    return tuple(parts)


def _is_bare(part: ReasoningPart) -> bool:
    """Whether nothing but its text is known of it."""
    return part.signature is None and part.redacted is None and part.encrypted is None and part.id is None
