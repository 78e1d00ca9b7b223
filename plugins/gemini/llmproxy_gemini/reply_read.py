"""Whole answers, read."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from llmproxy_core import ReplyHead, UpstreamGarbage
from llmproxy_core.chat import ChatOrigin, ChatReply, Choice, Citation, Part, TextPart, ToolCall, remember
from llmproxy_core.wire import Members, Wire, decode_object, garbage
from llmproxy_gemini.apis import FORM
from llmproxy_gemini.call_ids import CallIds, new_id
from llmproxy_gemini.chunk import NULLS, Chunk, decode_candidate, decode_chunk, error_in
from llmproxy_gemini.citations import read_citations
from llmproxy_gemini.finish import blocked, read_finish
from llmproxy_gemini.logprobs import read_logprobs
from llmproxy_gemini.part_read import read_part
from llmproxy_gemini.usage import read_usage
from llmproxy_gemini.utf8_places import Utf8Places

WIRE = Wire(FORM, own=True, fail=garbage)
_KNOWN = ("candidates", "usageMetadata", "modelVersion", "responseId", "createTime")
_KNOWN_OF_CHOICE = ("content", "finishReason", "finishMessage", "index", "logprobsResult")


def scan_reply(body: bytes, *, has_output: bool = True) -> ReplyHead:
    """See `Dialect.scan_reply`; embeddings have no output (*has_output*)."""
    chunk = _checked(body)
    finish = [decode_candidate(bytes(text)).finish_reason for text in chunk.candidates or ()]
    words = tuple(word for word in finish if word is not None)
    if not words and chunk.blocked is not None:
        words = (chunk.blocked,)
    usage = read_usage(bytes(chunk.usage_metadata), has_output=has_output)
    return ReplyHead(usage, chunk.model_version, words, chunk.response_id)


def _checked(body: bytes) -> Chunk:
    chunk = decode_chunk(body)
    if (error := error_in(chunk, body)) is not None:
        raise error
    return chunk


def read_reply(body: bytes) -> ChatReply:
    """The meaning of *body*. UpstreamGarbage when it is no answer, UpstreamError when it is an error."""
    chunk = _checked(body)
    if chunk.candidates is None and chunk.prompt_feedback is None and bytes(chunk.usage_metadata) in NULLS:
        raise UpstreamGarbage("The provider's answer has no candidates")
    usage = read_usage(bytes(chunk.usage_metadata))
    choices = [_read_choice(bytes(text), place, chunk) for place, text in enumerate(chunk.candidates or ())]
    if not choices:
        feedback = chunk.prompt_feedback
        message = None if feedback is None else feedback.block_reason_message
        choices = [Choice(0, (), None if chunk.blocked is None else blocked(chunk.blocked, message))]
    members = Members(body, "", garbage)
    for name in _KNOWN:
        members.raw(name)
    reply = ChatReply(
        id=chunk.response_id or "",
        model=chunk.model_version or "",
        choices=tuple(choices),
        usage=usage,
        created=chunk.created,
        service_tier=None if usage is None else usage.service_tier,
        extra=members.rest(),
    )
    raws = {name: bytes(raw) for name, raw in decode_object(body).items()}
    return attrs.evolve(reply, origin=ChatOrigin(FORM, raws, reply, body))


def _read_choice(text: bytes, position: int, chunk: Chunk) -> Choice:
    candidate = decode_candidate(text)
    index = position if candidate.index is None else candidate.index
    ids = CallIds(chunk.response_id or new_id(), index)
    texts = (candidate.content.parts if candidate.content is not None else None) or ()
    parts: list[Part] = []
    for place, raw in enumerate(texts):
        parts.append(read_part(bytes(raw), f"candidates[{position}].content.parts[{place}]", WIRE, ids, is_answer=True))
    called = any(isinstance(part, ToolCall) for part in parts)
    word = candidate.finish_reason
    members = Members(text, "", garbage)
    for name in _KNOWN_OF_CHOICE:
        members.raw(name)
    logprobs = bytes(candidate.logprobs_result)
    choice = Choice(
        index,
        _cited(parts, bytes(candidate.grounding_metadata), bytes(candidate.citation_metadata)),
        None if word is None else read_finish(word, candidate.finish_message, called=called),
        None if logprobs in NULLS else read_logprobs(logprobs),
        extra=members.rest(),
    )
    return remember(choice, FORM, text)


def _cited(parts: list[Part], grounding: bytes, citation: bytes) -> tuple[Part, ...]:
    """*parts* with the citations on the texts that they begin in; those without a place are on the last."""
    if grounding in NULLS and citation in NULLS:
        return tuple(parts)
    begins: dict[int, int] = {}
    text, length = Utf8Places(), 0
    for index, part in enumerate(parts):
        if isinstance(part, TextPart):
            begins[index] = length
            text.add(part.text)
            length += len(part.text)
    found: dict[int, list[Citation]] = {}
    for each in read_citations(grounding, citation, text) if begins else ():
        start = length if each.start is None else each.start
        index, begin = next(it for it in reversed(begins.items()) if it[1] <= start)
        found.setdefault(index, []).append(each if each.start is None else each.moved(-begin, 0))
    return tuple(_citing(part, found.get(index, ())) for index, part in enumerate(parts))


def _citing(part: Part, citations: Sequence[Citation]) -> Part:
    if not isinstance(part, TextPart) or not citations:
        return part
    cited: TextPart = attrs.evolve(part, citations=tuple(citations))
    return cited if part.raw is None else remember(cited, part.raw.api, part.raw.text)
