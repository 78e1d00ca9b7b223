"""
Every recorded answer of every provider reaches the clients of every protocol: plain and streamed, however it is cut.

What a client gets keeps to the grammar of its protocol, says what the provider said, and counts what it counted.
"""

from __future__ import annotations

from typing import Any

import llmproxy_anthropic
import llmproxy_gemini
import llmproxy_mistral
import msgspec
import pytest

from llmproxy_core.chat import ChatReply, FinishReason, RefusalPart
from llmproxy_core.sse import SSEDecoder
from llmproxy_core.testing.grammar import check_stream
from tests.exact import post
from tests.proxy import Proxy
from tests.recordings import CHATS, Recording, recordings
from tests.script import Script
from tests.speaking import SPEAKERS, Speaker, called, llm_at, said, thought, used
from tests.upstream import EVENT_STREAM, Chunk, End, Head, Split, Upstream, pieces, replay

PLUGINS = (llmproxy_anthropic, llmproxy_gemini, llmproxy_mistral)
CASES = [it for it in recordings(status=200, fails=False) if it.protocol in CHATS]
SPLITS: tuple[Split, ...] = ("whole", tuple(range(7, 200_000, 61)))
FILTERED = {FinishReason.REFUSAL, FinishReason.CONTENT_FILTER, FinishReason.ERROR}
"""Reasons that most protocols do not tell apart; Mistral has but `error` for all of them."""


def recorded(case: Recording) -> ChatReply:
    """The answer as the provider's own dialect reads it."""
    speaker = Speaker(case.dialect, array=case.grammar == "gemini-array")
    return speaker.read(case.response_body, stream=case.grammar is not None)


def mapping_for(case: Recording, base_url: str) -> dict[str, Any]:
    llm = llm_at(case.dialect, base_url, supports_streaming=case.grammar is not None)
    return {"llm": {"it": llm}, "route": [{"path_prefix": "/", "target_llm": "it", "operations": ["chat"]}]}


def check(case: Recording, speaker: Speaker, *, stream: bool, body: bytes, reply: ChatReply) -> None:
    where = f"{case} to {speaker}, {'streamed' if stream else 'plain'}: {body[:2000]!r}"
    if stream:
        protocol = "gemini-array" if speaker.array else speaker.name
        assert check_stream(protocol, body, strict=speaker.name != case.dialect) == [], where
    got = speaker.read(body, stream=stream)
    assert said(got) == said(reply), where
    assert called(got) == called(reply), where
    if used(reply) is not None or speaker.name == case.dialect:
        assert used(got) == used(reply), where
    else:
        assert used(got) not in (None, (0, 0)), where  # estimated
    if thought(reply):
        assert thought(got) == thought(reply), where
    refused = any(isinstance(part, RefusalPart) for choice in reply.choices for part in choice.content)
    assert reason(got) == reason(reply) or (refused and reason(got) is FinishReason.STOP), where  # as a text


def reason(reply: ChatReply) -> object:
    """Why the first choice ended; a refusal is one, whatever the finish is called."""
    if not reply.choices:
        return "filtered"
    choice = reply.choices[0]
    if any(isinstance(part, RefusalPart) for part in choice.content):
        return "filtered"
    found = choice.finish and choice.finish.reason
    return "filtered" if found in FILTERED else found


def answer(case: Recording, speaker: Speaker, split: Split) -> Script:
    """The recorded answer; Gemini's streams in the form that is asked for, which differ in their framing alone."""
    is_array = speaker.name == "gemini" and speaker.array
    if case.dialect != "gemini" or case.grammar is None or is_array == (case.grammar == "gemini-array"):
        return replay(case, split)
    if is_array:
        body = b"[" + b",\r\n".join(event.data for event in SSEDecoder().feed(case.response_body)) + b"]"
        return [Head(200, {"content-type": "application/json; charset=UTF-8"}), *map(Chunk, pieces(body, split)), End()]
    chunks = [msgspec.json.encode(chunk) for chunk in msgspec.json.decode(case.response_body)]
    body = b"".join(b"data: " + chunk + b"\r\n\r\n" for chunk in chunks)
    return [Head(200, EVENT_STREAM), *map(Chunk, pieces(body, split)), End()]


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_recorded_answer_reaches_clients_of_every_protocol(case: Recording) -> None:
    reply = recorded(case)
    async with Upstream() as upstream, Proxy(mapping_for(case, upstream.url), plugins=PLUGINS) as proxy:
        for speaker in SPEAKERS:
            for stream in (False, True):
                if case.grammar is not None and not stream:
                    continue  # what was recorded as a stream is asked for as one: the provider decides
                for split in SPLITS:
                    upstream.then(answer(case, speaker, split))
                    path = speaker.path(stream=stream, model="a-model")
                    question = speaker.body(stream=stream, model="a-model")
                    seen = await post(proxy.url + path, question, speaker.headers())
                    assert (seen.status, seen.whole) == (200, True), (str(speaker), seen)
                    check(case, speaker, stream=stream, body=seen.body, reply=reply)
