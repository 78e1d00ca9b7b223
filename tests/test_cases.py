"""The recordings of all providers come over a real socket as they were recorded, for every kind of client."""

from collections import Counter

import pytest

from llmproxy_core.testing.grammar import GRAMMARS
from tests.answers import Split, pieces
from tests.cases import CLIENTS, SPLITS, all_cases, answers_as
from tests.rawclient import connected
from tests.recordings import CHATS, Recording, recording, recordings
from tests.script import ScriptError
from tests.upstream import Upstream

TALKS = [it for it in recordings() if it.protocol in CHATS]
GEMINI = recording("streamGenerate-stream-google-model-iter-stream-1")


def ask(method: str, target: str) -> bytes:
    """A request, whose connection ends with the answer."""
    return f"{method} {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}".encode()


@pytest.mark.parametrize("split", SPLITS, ids=str)
@pytest.mark.parametrize("it", recordings(), ids=str)
async def test_a_provider_answers_as_it_was_recorded(it: Recording, split: Split) -> None:
    async with Upstream(answers_as(it, split)) as upstream, connected(upstream.port) as client:
        client.send(ask(it.request_method, it.request_path))
        head, _, body = (await client.rest()).partition(b"\r\n\r\n")

    assert int(head.split()[1]) == it.response_status
    assert unchunked(body) == it.response_body
    assert upstream.requests[0].chunks_sent == len(pieces(it.response_body, split))


def unchunked(body: bytes) -> bytes:
    """The body without the framing of its chunks."""
    whole = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        if not int(size, 16):
            return whole
        whole, body = whole + body[: int(size, 16)], body[int(size, 16) + 2 :]


@pytest.mark.parametrize(
    ("target", "is_right"),
    [
        ("/v1/models/another:streamGenerateContent?alt=sse", True),
        ("/v1beta/models/x:streamGenerateContent?key=k&alt=sse", True),
        ("/v1beta/models/x:streamGenerateContent", False),
        ("/v1beta/models/x:generateContent?alt=sse", False),
        ("/v1/chat/completions", False),
    ],
)
async def test_a_provider_answers_only_what_it_was_asked_in_the_recording(target: str, is_right: bool) -> None:
    async with Upstream(answers_as(GEMINI)) as upstream:
        async with connected(upstream.port) as client:
            client.send(ask("POST", target))
            answer = await client.rest()
        errors = upstream.take_errors()

    assert answer.startswith(b"HTTP/1.1 200" if is_right else b"HTTP/1.1 404")
    assert [type(each) for each in errors] == ([] if is_right else [ScriptError])


def test_there_is_a_case_for_every_conversation_and_client() -> None:
    cases = all_cases()

    assert len(cases) == len(TALKS) * len(CLIENTS) == len({str(case) for case in cases})
    assert {case.client for case in cases} == set(CLIENTS) == set(GRAMMARS)
    assert {case.recording.dialect for case in cases} == set(CLIENTS) - {"gemini-array"}


def test_cases_are_chosen() -> None:
    own = all_cases(own=True, stream=True)

    assert own
    assert all(case.is_own and case.recording.is_event_stream for case in own)
    assert len(all_cases(own=False)) == len(all_cases()) - len(all_cases(own=True))
    assert {str(case) for case in all_cases(clients=["mistral"], provider="mistral", status=422)} == {
        "mistral/chat-json-made-error422-validation to mistral"
    }
    assert {str(case.recording) for case in all_cases(stream=True, fails=True)} == {
        "anthropic/messages-stream-made-stream-overloaded-midway",
        "openai/responses-stream-fixture-error-event-then-failed",
    }


def test_a_recording_names_its_dialect_its_grammar_and_its_model() -> None:
    assert Counter(it.dialect for it in recordings()) == {
        "openai": 39,
        "anthropic": 28,
        "openai-responses": 18,
        "gemini": 24,
        "mistral": 13,
    }
    assert Counter(it.grammar for it in recordings() if it.grammar is not None) == {
        "openai": 14,
        "openai-responses": 11,
        "anthropic": 13,
        "gemini": 8,
        "gemini-array": 1,
        "mistral": 5,
    }
    assert GEMINI.model == "gemini-2.0-flash"
    assert all(it.model for it in TALKS)
