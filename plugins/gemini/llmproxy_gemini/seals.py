"""Thought signatures: our provider's own, and what clients carry for another under a seal in their place."""

from __future__ import annotations

import base64

from llmproxy_core import Carried, seal, unseal
from llmproxy_core.chat import ReasoningPart
from llmproxy_gemini.apis import NAME

STAND_IN = "skip_thought_signature_validator"
"""What Google takes in place of the signature of a call that none of its models made."""

_STAND_INS = frozenset({STAND_IN, base64.b64encode(STAND_IN.encode()).decode()})


def read_thought(text: str, signature: str | None, extra: dict[str, bytes]) -> ReasoningPart:
    """A part that is a thought."""
    carried = None if signature is None else unseal(signature)
    if carried is None:
        return ReasoningPart(text, summary=True, signature=signature, provider=NAME, extra=extra)
    return ReasoningPart(
        text,
        id=carried.id,
        signature=carried.signature,
        redacted=carried.redacted,
        encrypted=carried.encrypted,
        provider=carried.provider or None,
        extra=extra,
    )


def own_signature(signature: str | None) -> str | None:
    """The signature of a text or a call; None for what another provider's seal says: it signs no such thing."""
    if signature is None or signature in _STAND_INS:
        return None
    if (carried := unseal(signature)) is None:
        return signature
    return carried.signature if carried.provider == NAME else None


def signature_for_client(
    *, signature: str | None, redacted: str | None, encrypted: str | None, provider: str | None, id: str | None
) -> str | None:
    """
    What a client gets as the signature of thinking.

    None where that is nobody's in particular. Another provider's name is sealed even by itself: it may want its
    thinking back without having signed it.
    """
    if provider in {None, NAME} and redacted is None and encrypted is None:
        return signature
    return seal(Carried(provider or "", signature, redacted, encrypted, id))
