"""Thinking in messages: our own provider's, and that of others, which clients carry for us under a seal."""

from __future__ import annotations

from llmproxy_anthropic.apis import NAME
from llmproxy_core import Carried, seal, unseal
from llmproxy_core.chat import ReasoningPart
from llmproxy_core.wire import STRING, Members, Wire, encode, join_object, text_signature


def read_thinking(members: Members) -> ReasoningPart:
    """A `thinking` block. A seal in place of the signature tells which provider thought."""
    text, signature = members.take("thinking", STRING) or "", members.take("signature", STRING)
    carried = unseal(signature or "")
    if carried is None:
        return ReasoningPart(text, signature=signature or None, provider=NAME, extra=members.rest())
    return opened(text, carried)


def read_redacted(members: Members) -> ReasoningPart | Carried:
    """A `redacted_thinking` block; Carried: the signature of the tool call that follows."""
    data = members.need("data", STRING)
    carried = unseal(data)
    if carried is None:
        return ReasoningPart("", redacted=data, provider=NAME, extra=members.rest())
    return carried if carried.of_call else opened("", carried)


def opened(text: str, carried: Carried) -> ReasoningPart:
    """The thinking that *carried* stands for."""
    return ReasoningPart(
        text,
        id=carried.id,
        signature=carried.signature,
        redacted=carried.redacted,
        encrypted=carried.encrypted,
        provider=carried.provider or None,
    )


def is_ours(part: ReasoningPart) -> bool:
    """Whether our provider made *part*, and can check that it did."""
    return part.provider == NAME and (part.signature is not None or part.redacted is not None)


def write_ours(part: ReasoningPart, wire: Wire, place: str) -> bytes:
    """Our provider's own block again."""
    if part.redacted is not None:
        return redacted_block(part.redacted)
    members = {
        "type": b'"thinking"',
        "thinking": encode(part.text),
        "signature": encode(part.signature or ""),
    }
    return join_object(members | wire.unknown(part.extra, place))


def write_for_client(part: ReasoningPart, wire: Wire, place: str) -> bytes | None:
    """Thinking as a client is given it, to be sent back; None when there is nothing in it."""
    if part.provider == NAME:
        return write_ours(part, wire, place)
    if not part.text and (part.redacted or part.encrypted or text_signature.carries(part)):
        return redacted_block(seal(carried_of(part)))
    if not part.text and part.signature is None:
        return None
    return join_object(
        {
            "type": b'"thinking"',
            "thinking": encode(part.text),
            "signature": encode(seal(carried_of(part))),
        }
    )


def carried_of(part: ReasoningPart) -> Carried:
    return Carried(part.provider or "", part.signature, part.redacted, part.encrypted, part.id)


def redacted_block(data: str) -> bytes:
    return join_object({"type": b'"redacted_thinking"', "data": encode(data)})


def call_signature(signature: str, call_id: str) -> bytes:
    """The block before the tool call *call_id* that carries the call's signature, which only Gemini has."""
    return redacted_block(seal(Carried("gemini", signature=signature, id=call_id, of_call=True)))
