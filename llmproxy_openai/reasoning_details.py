"""
`reasoning_details`: how thinking of other providers is carried through clients of OpenAI's protocol.

The member is OpenRouter's invention, and some clients send it back as it came. An entry of ours holds what `seal` made;
any other entry is the server's own affair.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs
import msgspec

from llmproxy_core.carried import Carried, seal, unseal
from llmproxy_core.chat import ReasoningDelta, ReasoningPart
from llmproxy_core.wire import encode, join_array, join_object


class _Detail(msgspec.Struct):
    type: str = ""
    text: str = ""
    summary: str = ""
    signature: str | None = None
    data: str | None = None


_decode = msgspec.json.Decoder(list[_Detail]).decode


def read_details(text: bytes, member: str | None, said: str) -> list[ReasoningPart] | None:
    """The thinking in *text* when each entry is one that we wrote; else None. *member* repeats their texts: *said*."""
    try:
        details = _decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    parts: list[ReasoningPart] = []
    for detail in details:
        carried = unseal(detail.signature or detail.data or "")
        if carried is None:
            return None
        parts.append(_part(detail, carried, member))
    return _with_bare_text(parts, said) or None


def _with_bare_text(parts: list[ReasoningPart], said: str) -> list[ReasoningPart]:
    """*parts* with the text of the unsigned one, which is what the others leave of *said*."""
    place = next((place for place, part in enumerate(parts) if not part.text and not _marks(part)), None)
    if place is None:
        return parts
    before = "".join(part.text for part in parts[:place])
    after = "".join(part.text for part in parts[place:])
    if not said.startswith(before) or not said.endswith(after):
        return parts
    text = said[len(before) : len(said) - len(after)]
    return [*parts[:place], attrs.evolve(parts[place], text=text), *parts[place + 1 :]]


def _marks(part: ReasoningPart) -> tuple[str, ...]:
    """What only the provider of *part* can read."""
    return tuple(it for it in (part.signature, part.redacted, part.encrypted, part.id) if it is not None)


def _part(detail: _Detail, carried: Carried, member: str | None) -> ReasoningPart:
    return ReasoningPart(
        detail.text or detail.summary,
        summary=detail.type == "reasoning.summary",
        id=carried.id,
        signature=carried.signature,
        redacted=carried.redacted,
        encrypted=carried.encrypted,
        provider=carried.provider,
        member=member,
    )


def must_return(part: ReasoningPart, dialect: str) -> bool:
    """
    Whether *part* is what another provider than *dialect*'s may want back.

    That is so of a bare text too: not all of them sign their thinking (Mistral), and its name tells whose it is.
    """
    is_foreign = part.provider is not None and part.provider != dialect
    return is_foreign and bool(part.text or _marks(part))


def sealed(part: ReasoningPart) -> str:
    """What the provider of *part* needs back."""
    return seal(Carried(part.provider or "", part.signature, part.redacted, part.encrypted, part.id))


def write_details(parts: Iterable[ReasoningPart], first: int = 0) -> bytes:
    """*parts* as the member; their places count from *first*, which is how clients put pieces of lists together."""
    return join_array(_write(part, first + place) for place, part in enumerate(parts))


def _write(part: ReasoningPart, place: int) -> bytes:
    mark, text = encode(sealed(part)), encode(part.text)
    if not _marks(part):  # its text stands in the member beside this one, and nobody has signed it
        members = {"type": b'"reasoning.encrypted"', "data": mark}
    elif part.summary:
        members = {"type": b'"reasoning.summary"', "summary": text, "data": mark}
    elif part.text:
        members = {"type": b'"reasoning.text"', "text": text, "signature": mark}
    else:
        members = {"type": b'"reasoning.encrypted"', "data": mark}
    return join_object(members | {"format": encode(part.provider), "index": encode(place)})


class StreamedThinking:
    """
    Collects the thinking of one choice of a stream.

    A piece of a list that a client adds up must not come in parts whose texts run together, so each block goes out
    whole, once it has ended.
    """

    __slots__ = ("_dialect", "_part", "told")

    def __init__(self, dialect: str) -> None:
        self._dialect = dialect
        self._part: ReasoningPart | None = None
        self.told = 0
        """How many blocks have been given out."""

    def add(self, delta: ReasoningDelta) -> ReasoningPart | None:
        """Take a piece; the block that has ended before it, when it must come back."""
        last = self._part
        begins = last is None or last.signature is not None or last.redacted is not None or delta.redacted is not None
        ended = self.end() if begins else None
        before = self._part or ReasoningPart("", summary=delta.summary, provider=delta.provider)
        self._part = attrs.evolve(
            before,
            text=before.text + delta.text,
            signature=delta.signature or before.signature,
            redacted=delta.redacted or before.redacted,
            encrypted=delta.encrypted or before.encrypted,
            id=delta.id or before.id,
            provider=before.provider or delta.provider,
        )
        return ended

    def end(self) -> ReasoningPart | None:
        """The block that has ended; None when nothing of it must come back."""
        part, self._part = self._part, None
        if part is None or not must_return(part, self._dialect):
            return None
        self.told += 1
        return part
