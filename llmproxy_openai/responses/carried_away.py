"""What other providers' thinking left in a conversation, which OpenAI must not see."""

from __future__ import annotations

import msgspec

from llmproxy_core.carried import SEAL_MARK, unseal
from llmproxy_core.jsontext import TopLevel
from llmproxy_core.wire import decode_array, decode_object, join_array

_MARK = b'"' + SEAL_MARK


class _Item(msgspec.Struct):
    type: str = ""
    encrypted_content: str | None = None


_decode = msgspec.json.Decoder(_Item).decode


def without_foreign(body: bytes) -> bytes:
    """*body* without the thinking of other providers, as which it was carried through the client."""
    if _MARK not in body:
        return body
    raws = decode_object(body)
    text = bytes(raws.get("input", b"null"))
    if not text.startswith(b"["):
        return body
    items = [bytes(item) for item in decode_array(text)]
    kept = [item for item in items if not _is_foreign(item)]
    return body if len(kept) == len(items) else TopLevel(body, raws).splice({"input": join_array(kept)})


def _is_foreign(item: bytes) -> bool:
    if _MARK not in item:
        return False
    try:
        found = _decode(item)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return found.type == "reasoning" and unseal(found.encrypted_content or "") is not None
