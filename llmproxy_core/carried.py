"""
What only one provider can read, carried through a client that speaks another protocol.

Signatures and encrypted thinking must come back to the provider that made them. In its own protocol they have a place;
in another the client is given one text that it sends back untouched, and that says whose it is.
"""

from __future__ import annotations

import base64
import binascii

import attrs
import msgspec

_MARK = "LLMPROXY" * 4
SEAL_MARK = _MARK.encode()
"""
What every sealed text begins with: a request without it carries nothing.

Each body is searched for it. A long one of letters that texts hardly have is found to be missing in a fifth of the time
that a short word takes, and from the end (`rfind`) in a third of that.
"""
_LONGEST = 4 << 20
_TO_URL = str.maketrans("+/", "-_")


@attrs.frozen
class Carried:
    """What is carried. *provider* names the dialect that issued it; the rest as in ReasoningPart."""

    provider: str
    signature: str | None = None
    redacted: str | None = None
    encrypted: str | None = None
    id: str | None = None
    of_call: bool = False
    """The signature belongs to the tool call that follows, whose id is *id*, not to thinking."""


def seal(carried: Carried) -> str:
    """*carried* as one text of letters, digits, `_` and `-`, its length a multiple of four: base64url itself."""
    members = attrs.asdict(carried, filter=lambda attribute, value: value not in (None, False))
    text = msgspec.json.encode(members)
    packed = base64.urlsafe_b64encode(text + b" " * (-len(text) % 3)).decode()
    filled = _MARK + packed
    return filled + "_" * (-len(filled) % 4)


def unseal(text: str) -> Carried | None:
    """What `seal` made a text of; None when *text* is none of its. The other alphabet of base64 is read too."""
    text = text.translate(_TO_URL)
    if not text.startswith(_MARK) or len(text) > _LONGEST:
        return None
    packed = text[len(_MARK) :]
    packed = packed[: len(packed) - len(packed) % 4]
    try:
        return msgspec.convert(_decode(base64.urlsafe_b64decode(packed)), Carried)
    except (msgspec.MsgspecError, binascii.Error, UnicodeDecodeError, TypeError, ValueError):
        return None


_decode = msgspec.json.Decoder(dict[str, str | bool]).decode
