"""
Signatures of texts, which Gemini gives, carried through clients whose protocol signs thinking alone.

Such a client gets the signature as a thinking without a text, beside the text that it belongs to, and sends it back as
it sends back all thinking. Nobody but the signature's provider is given it.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from llmproxy_core.chat import ChatEvent, Part, ReasoningDelta, ReasoningPart, TextDelta, TextPart

_PROVIDER = "gemini"
_OF_LAST, _OF_NEXT = "of_last_text", "of_next_text"
"""Ids of such thinking: which text the signature belongs to."""


def carries(thinking: ReasoningPart | ReasoningDelta) -> bool:
    """Whether *thinking* is the signature of a text."""
    return thinking.provider == _PROVIDER and thinking.id in {_OF_LAST, _OF_NEXT}


def apart(parts: Sequence[Part], *, first: bool = False) -> list[Part]:
    """*parts* of an answer with the signatures of texts as thinking behind these; *first*: before them."""
    said: list[Part] = []
    for part in parts:
        if not isinstance(part, TextPart) or part.signature is None:
            said.append(part)
            continue
        text = [attrs.evolve(part, signature=None)] if part.text or part.citations else []
        carried = ReasoningPart("", id=_OF_NEXT if first else _OF_LAST, signature=part.signature, provider=_PROVIDER)
        said += [carried, *text] if first else [*text, carried]
    return said


def apart_in_stream(event: TextDelta, *, first: bool = False) -> list[ChatEvent]:
    """The same of a piece of a text that may have a signature."""
    if event.signature is None:
        return [event]
    has_text = event.text or event.logprobs is not None
    text = [TextDelta(event.choice, event.text, event.logprobs)] if has_text else []
    carried = ReasoningDelta(event.choice, "", event.signature, provider=_PROVIDER, id=_OF_NEXT if first else _OF_LAST)
    return [carried, *text] if first else [*text, carried]


def rejoined(parts: Sequence[Part]) -> list[tuple[int, Part]]:
    """
    *parts* of a turn, each with its place, the signatures of texts on their texts again.

    One whose text is not beside it is that of an empty text. In a protocol whose thinking comes first, that text is
    the one that follows.
    """
    said: list[tuple[int, Part]] = []
    waiting: str | None = None
    for place, part in enumerate(parts):
        if isinstance(part, ReasoningPart) and carries(part):
            last = said[-1][1] if said else None
            if part.id == _OF_LAST and isinstance(last, TextPart) and last.signature is None:
                said[-1] = (said[-1][0], attrs.evolve(last, signature=part.signature))
            else:
                said += [] if waiting is None else [(place, TextPart("", signature=waiting))]
                waiting = part.signature
        elif waiting is not None and isinstance(part, TextPart) and part.signature is None:
            said.append((place, attrs.evolve(part, signature=waiting)))
            waiting = None
        elif waiting is not None and not isinstance(part, ReasoningPart):
            said += [(place, TextPart("", signature=waiting)), (place, part)]
            waiting = None
        else:
            said.append((place, part))
    return said if waiting is None else [*said, (len(parts), TextPart("", signature=waiting))]
