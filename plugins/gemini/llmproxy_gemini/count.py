"""Token counts: of `contents` alone, or of a whole request in `generateContentRequest`."""

from __future__ import annotations

import attrs

from llmproxy_core import Translation
from llmproxy_core.chat import ChatRequest, JSONText
from llmproxy_core.wire import INTEGER, Members, encode, garbage, join_object, scan, with_members
from llmproxy_gemini.apis import COUNT, FORM
from llmproxy_gemini.request import named, prepare, read_chat, write_chat
from llmproxy_gemini.spelling import spelled

_WHOLE = "generateContentRequest"


def _whole_in(body: bytes) -> tuple[str, JSONText | None]:
    """The spelling and the text of the request within *body*, if there is one."""
    members = scan(body).raws
    name = spelled(_WHOLE, members)
    found = members.get(name)
    return name, None if found is None or bytes(found) == b"null" else bytes(found)


def read_count_chat(body: bytes) -> ChatRequest:
    """The conversation whose tokens are to be counted."""
    _, whole = _whole_in(body)
    chat = read_chat(body if whole is None else whole)
    assert chat.origin is not None  # it was just read
    return attrs.evolve(chat, origin=attrs.evolve(chat.origin, api=COUNT.form, text=body))


def write_count_chat(chat: ChatRequest, translation: Translation | None = None) -> bytes:
    """*chat* as a request for its count, in the form that it was read from."""
    origin = chat.origin
    if origin is None or origin.api != COUNT.form:
        whole = write_chat(chat, translation)
        model = {} if chat.model is None else {"model": named(chat.model)}
        return join_object({_WHOLE: with_members(whole, model)})
    name, inner = _whole_in(origin.text)
    inside = attrs.evolve(origin, api=FORM, text=origin.text if inner is None else inner)
    written = write_chat(attrs.evolve(chat, origin=inside), translation)
    return written if inner is None else with_members(origin.text, {name: written})


def prepare_count(body: bytes, model: str | None) -> bytes:
    """*body* for *model*, which the request within it names too."""
    if model is None:
        return body
    name, whole = _whole_in(body)
    if whole is None:
        return prepare(body, model)
    changed = prepare(whole, model)
    return body if changed == whole else with_members(body, {name: changed})


def read_count(body: bytes) -> int:
    """The tokens that an answer tells."""
    return Members(body, "", garbage).need("totalTokens", INTEGER)


def write_count(tokens: int) -> bytes:
    """The answer."""
    return join_object({"totalTokens": encode(tokens)})
