"""Thinking: `{"text", "stamp"}`. The stamp proves to whoever made it that the text is unchanged."""

from llmproxy_core import Carried, seal, unseal
from llmproxy_core.chat import ReasoningDelta, ReasoningPart, remember
from llmproxy_core.wire import STRING, Members, Wire, encode, join_object
from llmproxy_parley.apis import NAME


def read_thought(text: bytes, place: str, wire: Wire) -> ReasoningPart:
    members = Members(text, place, wire.fail)
    said, stamp = members.take("text", STRING) or "", members.take("stamp", STRING)
    if (carried := unseal(stamp or "")) is None:
        part = ReasoningPart(said, signature=stamp, provider=NAME, extra=members.rest())
    else:  # another provider's, which we sealed when we told it to this client
        part = ReasoningPart(
            said,
            id=carried.id,
            signature=carried.signature,
            redacted=carried.redacted,
            encrypted=carried.encrypted,
            provider=carried.provider,
            extra=members.rest(),
        )
    return remember(part, wire.api, text)


def write_thought(part: ReasoningPart, wire: Wire) -> bytes:
    return wire.kept(part.raw) or join_object(members_of(part) | wire.unknown(part.extra, "thoughts"))


def members_of(part: ReasoningPart | ReasoningDelta) -> dict[str, bytes]:
    stamp = _stamp(part)
    return {"text": encode(part.text)} | ({} if stamp is None else {"stamp": encode(stamp)})


def _stamp(part: ReasoningPart | ReasoningDelta) -> str | None:
    """Our own as it is; what another provider must get back, sealed."""
    if part.provider in (None, NAME):
        return part.signature
    if not (part.signature or part.redacted or part.encrypted):
        return None
    return seal(Carried(part.provider or "", part.signature, part.redacted, part.encrypted, part.id))
