"""Thinking of another provider that a client got in pieces, put together again."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from llmproxy_core.chat import Message, Part, ReasoningPart
from llmproxy_gemini.apis import NAME


def joined(turns: Sequence[Message]) -> list[Message]:
    """
    *turns* of the model in a row, each run of thoughts before a seal being one thought.

    A stream gives thinking piece by piece, and its seal at the end, in a part without text; SDKs keep each piece as a
    part, or a turn, of its own. The provider takes back the whole of it only. What is untouched is the same object.
    """
    contents: list[list[Part]] = [[] for _ in turns]
    run: list[ReasoningPart] = []  # what the contents from the turn *first* on end with
    first = 0
    for place, turn in enumerate(turns):
        for part in turn.content:
            if run and isinstance(part, ReasoningPart) and _is_seal(part):
                for content in contents[first : place + 1]:
                    while content and isinstance(content[-1], ReasoningPart) and _is_piece(content[-1]):
                        content.pop()
                part = attrs.evolve(part, text="".join(piece.text for piece in run))
                run = []
            elif isinstance(part, ReasoningPart) and _is_piece(part):
                first = first if run else place
                run.append(part)
            else:
                run = []
            contents[place].append(part)
    pairs = zip(turns, contents, strict=True)
    return [turn if list(turn.content) == parts else attrs.evolve(turn, content=tuple(parts)) for turn, parts in pairs]


def _is_seal(part: ReasoningPart) -> bool:
    """Whether *part* ends a run of thoughts: another provider's, and nothing but what goes back to it."""
    return not part.text and part.provider != NAME and part.redacted is None


def _is_piece(part: ReasoningPart) -> bool:
    """Whether *part* is a thought without signature, which may be anybody's."""
    return part.provider == NAME and part.signature is None
