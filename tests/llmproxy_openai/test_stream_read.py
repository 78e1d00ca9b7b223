"""Streams of OpenAI and of servers that speak its protocol their own way mean the same."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core.chat import (
    AudioDelta,
    ChatEvent,
    Citation,
    CitationAdded,
    End,
    Failed,
    Finish,
    Finished,
    FinishReason,
    OpaqueEvent,
    Ping,
    ReasoningDelta,
    RefusalDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    UsageReported,
)
from llmproxy_core.errors import UpstreamGarbage
from llmproxy_core.usage import Usage
from llmproxy_openai.paths import CHAT, COMPLETIONS
from tests.llmproxy_openai.streams import (
    DONE,
    OPENAI,
    STREAMS,
    api_of,
    chunk,
    delta,
    event,
    events_of,
    frames_of,
    splits,
)
from tests.recordings import Recording

START = Start("c1", "m", 7)
STOP = Finished(0, Finish(FinishReason.STOP, "stop"))


def meaning(*chunks: bytes) -> list[ChatEvent]:
    """The events after the start."""
    events = events_of(b"".join(chunks))
    assert events[0] == START
    return events[1:]


# -- recordings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recording", STREAMS, ids=str)
def test_the_frames_of_a_recording_are_its_bytes(recording: Recording) -> None:
    frames = frames_of(recording.response_body, api_of(recording))

    assert b"".join(frame.raw for frame in frames) == recording.response_body


@pytest.mark.parametrize("recording", STREAMS, ids=str)
@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_recording_split_anywhere_has_the_same_frames(recording: Recording, size: int) -> None:
    whole, api = recording.response_body, api_of(recording)

    frames = frames_of(whole, api, splits(whole, size))

    assert [(frame.raw, frame.events) for frame in frames] == [
        (frame.raw, frame.events) for frame in frames_of(whole, api)
    ]


@pytest.mark.parametrize("recording", STREAMS, ids=str)
def test_a_recording_starts_once_finishes_each_choice_once_and_ends(recording: Recording) -> None:
    events = events_of(recording.response_body, api_of(recording))

    meaningful = [event for event in events if not isinstance(event, Ping)]
    assert isinstance(meaningful[0], Start)
    assert meaningful[0].id
    assert meaningful[0].model
    assert isinstance(events[-1], End)
    assert [type(event) for event in events].count(Start) == 1
    finished = [event.choice for event in events if isinstance(event, Finished)]
    spoken = {event.choice for event in events if isinstance(event, TextDelta | ToolCallStart)}
    assert len(finished) == len(set(finished))
    assert spoken <= set(finished)


# -- texts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        pytest.param(delta(role="assistant", content=""), [], id="the role alone"),
        pytest.param(delta(content="a"), [TextDelta(0, "a")], id="text"),
        pytest.param(delta(content=None), [], id="null"),
        pytest.param({"delta": {"content": "a"}}, [TextDelta(0, "a")], id="no index"),
        pytest.param(
            delta(content="a", logprobs={"content": []}), [TextDelta(0, "a", b'{"content":[]}')], id="log probabilities"
        ),
        pytest.param(delta(refusal="no"), [RefusalDelta(0, "no")], id="refusal"),
        pytest.param(
            delta(reasoning_content="hm"),
            [ReasoningDelta(0, "hm", provider="openai", member="reasoning_content")],
            id="DeepSeek thinks",
        ),
        pytest.param(delta(reasoning="hm"), [ReasoningDelta(0, "hm", member="reasoning")], id="Groq thinks"),
        pytest.param(
            delta(reasoning="hm", reasoning_content="hm", content=""),
            [ReasoningDelta(0, "hm", provider="openai", member="reasoning_content")],
            id="thinking said twice",
        ),
        pytest.param(
            delta(
                content=[
                    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                    {"type": "text", "text": "a"},
                    {"type": "refusal", "refusal": "no"},
                    {"type": "reference", "ids": [1]},
                ]
            ),
            [
                ReasoningDelta(0, "hm", provider="openai", member="thinking"),
                TextDelta(0, "a"),
                RefusalDelta(0, "no"),
                OpaqueEvent("reference", b'{"type":"reference","ids":[1]}', 0, "openai.chat"),
            ],
            id="Mistral's list",
        ),
        pytest.param(
            delta(content=[{"type": "image_url", "image_url": {"url": "u"}}]),
            [OpaqueEvent("ImagePart", b'{"type":"image_url","image_url":{"url":"u"}}', 0, "openai.chat")],
            id="a part that no event is for",
        ),
        pytest.param(
            delta(audio={"id": "a", "data": "AA", "transcript": "hi"}), [AudioDelta(0, "AA", "hi", "a")], id="speech"
        ),
        pytest.param(
            delta(annotations=[{"type": "url_citation", "url_citation": {"url": "u"}}]),
            [CitationAdded(0, Citation("url_citation", "u"))],
            id="citation",
        ),
        pytest.param(delta(finish="stop"), [STOP], id="finish"),
        pytest.param(
            delta(finish="length", content="a"),
            [TextDelta(0, "a"), Finished(0, Finish(FinishReason.LENGTH, "length"))],
            id="finish with the last text",
        ),
    ],
)
def test_a_delta_is_understood(choice: dict[str, Any], expected: list[ChatEvent]) -> None:
    assert meaning(chunk(choice)) == expected


def test_choices_interleave() -> None:
    events = meaning(chunk(delta(0, content="a"), delta(1, content="b")), chunk(delta(1, content="c")))

    assert events == [TextDelta(0, "a"), TextDelta(1, "b"), TextDelta(1, "c")]


def test_a_finish_said_twice_is_one() -> None:
    assert meaning(chunk(delta(finish="stop")), chunk(delta(finish="stop"))) == [STOP]


def test_legacy_chunks_have_bare_texts() -> None:
    stream = chunk({"text": "a", "index": 0, "logprobs": None, "finish_reason": None})
    stream += chunk({"text": "", "index": 0, "finish_reason": "stop"}) + DONE

    assert events_of(stream, COMPLETIONS) == [START, TextDelta(0, "a"), STOP, End()]


# -- calls ---------------------------------------------------------------------------------------------------------


def call(
    index: int | None = None, call_id: str | None = None, name: str | None = None, arguments: object = None
) -> dict[str, object]:
    """A piece of a call; None leaves a member out."""
    function = {"name": name, "arguments": arguments}
    piece = {"index": index, "id": call_id, "type": "function"}
    return {key: value for key, value in piece.items() if value is not None} | {
        "function": {key: value for key, value in function.items() if value is not None}
    }


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        pytest.param(
            [call(0, "a", "f", ""), call(0, arguments='{"x'), call(0, arguments='":1}')],
            [ToolCallStart(0, 0, "a", "f"), ToolCallDelta(0, 0, '{"x'), ToolCallDelta(0, 0, '":1}')],
            id="OpenAI",
        ),
        pytest.param(
            [call(1, "a", "f", ""), call(2, "b", "g", ""), call(1, arguments="{}"), call(2, arguments="{}")],
            [
                ToolCallStart(0, 0, "a", "f"),
                ToolCallStart(0, 1, "b", "g"),
                ToolCallDelta(0, 0, "{}"),
                ToolCallDelta(0, 1, "{}"),
            ],
            id="the first index is 1",
        ),
        pytest.param(
            [call(0, "a", "f", "{"), call(0, "a", "", "}"), call(0, "", "", "")],
            [ToolCallStart(0, 0, "a", "f"), ToolCallDelta(0, 0, "{"), ToolCallDelta(0, 0, "}")],
            id="names are empty later",
        ),
        pytest.param(
            [call(None, "a", "f", "{}"), call(None, "b", "f", "{}")],
            [
                ToolCallStart(0, 0, "a", "f"),
                ToolCallDelta(0, 0, "{}"),
                ToolCallStart(0, 1, "b", "f"),
                ToolCallDelta(0, 1, "{}"),
            ],
            id="whole calls without an index",
        ),
        pytest.param(
            [call(None, "a", "f"), call(arguments="{}"), call(None, "a", arguments=" ")],
            [ToolCallStart(0, 0, "a", "f"), ToolCallDelta(0, 0, "{}"), ToolCallDelta(0, 0, " ")],
            id="pieces without an index continue the last call, or that of their id",
        ),
        pytest.param(
            [call(0, "a", "f", "{}"), call(0, "b", "g", "{}")],
            [
                ToolCallStart(0, 0, "a", "f"),
                ToolCallDelta(0, 0, "{}"),
                ToolCallStart(0, 1, "b", "g"),
                ToolCallDelta(0, 1, "{}"),
            ],
            id="every call has the index 0",
        ),
        pytest.param(
            [call(0, "a"), call(0, name="f"), call(0, arguments="{}")],
            [ToolCallStart(0, 0, "a", "f"), ToolCallDelta(0, 0, "{}")],
            id="the name comes after the id",
        ),
        pytest.param(
            [call(0, "a", "f", {"x": 1})],
            [ToolCallStart(0, 0, "a", "f"), ToolCallDelta(0, 0, '{"x":1}')],
            id="arguments as an object",
        ),
        pytest.param(
            [{"index": 0, "id": "a", "type": "custom", "custom": {"name": "f", "input": "x"}}],
            [ToolCallStart(0, 0, "a", "f", "custom"), ToolCallDelta(0, 0, "x")],
            id="custom tool",
        ),
        pytest.param(
            [{**call(0, "a", "f"), "extra_content": {"google": {"thought_signature": "s"}}}],
            [ToolCallStart(0, 0, "a", "f", signature="s")],
            id="Google's signature",
        ),
        pytest.param(
            [call(0, "a", "llmproxy_text_f", '{"te'), call(0, arguments='xt":"a\\'), call(0, arguments='nb"}')],
            [ToolCallStart(0, 0, "a", "f", "custom"), ToolCallDelta(0, 0, "a"), ToolCallDelta(0, 0, "\nb")],
            id="a tool that stands for one that takes a text",
        ),
    ],
)
@pytest.mark.parametrize("together", [False, True])
def test_pieces_of_calls_find_their_call(
    pieces: list[dict[str, object]], expected: list[ChatEvent], together: bool
) -> None:
    groups = [pieces] if together else [[piece] for piece in pieces]

    assert meaning(*[chunk(delta(tool_calls=group)) for group in groups]) == expected


def test_a_call_without_an_id_gets_one_that_no_other_answer_has() -> None:
    piece = delta(tool_calls=[call(0, "", "f", "{}")])

    first, again, other = (meaning(chunk(piece))[0], meaning(chunk(piece))[0], events_of(chunk(piece, id="c2"))[1])

    assert isinstance(first, ToolCallStart)
    assert first.id.startswith("call_")
    assert first == again
    assert isinstance(other, ToolCallStart)
    assert other.id != first.id


def test_calls_count_for_each_choice() -> None:
    events = meaning(
        chunk(delta(0, tool_calls=[call(0, "a", "f")]), delta(1, tool_calls=[call(0, "b", "f")], finish="stop"))
    )

    assert events == [
        ToolCallStart(0, 0, "a", "f"),
        ToolCallStart(1, 0, "b", "f"),
        Finished(1, Finish(FinishReason.TOOL_CALLS, "stop")),
    ]


def test_the_legacy_call_is_one() -> None:
    events = meaning(
        chunk(delta(function_call={"name": "f", "arguments": ""})),
        chunk(delta(function_call={"arguments": "{}"})),
        chunk(delta(finish="function_call")),
    )

    assert events == [
        ToolCallStart(0, 0, "", "f", "legacy"),
        ToolCallDelta(0, 0, "{}"),
        Finished(0, Finish(FinishReason.TOOL_CALLS, "function_call")),
    ]


# -- the rest of a stream ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "members",
    [
        pytest.param({"usage": {"prompt_tokens": 1, "completion_tokens": 2}}, id="usage"),
        pytest.param({"x_groq": {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}}, id="Groq"),
    ],
)
def test_usage_is_reported(members: dict[str, Any]) -> None:
    assert meaning(chunk(delta(content="a"), **members)) == [TextDelta(0, "a"), UsageReported(Usage(1, 2))]


def test_usage_in_a_choice_is_reported() -> None:
    """Moonshot's."""
    usage = {"prompt_tokens": 1, "completion_tokens": 2}

    assert meaning(chunk(delta(content="a") | {"usage": usage})) == [TextDelta(0, "a"), UsageReported(Usage(1, 2))]


def test_usage_of_another_type_is_none() -> None:
    assert meaning(chunk(delta(content="a"), usage="many", x_groq=5)) == [TextDelta(0, "a")]


def test_azures_first_chunk_is_no_start() -> None:
    first = event({"id": "", "model": "", "object": "", "created": 0, "choices": [], "prompt_filter_results": []})

    frames = frames_of(first + chunk(delta(content="a")))

    assert frames[0].events == []
    assert frames[1].events == [START, TextDelta(0, "a")]


def test_comments_are_pings() -> None:
    frames = frames_of(b": OPENROUTER PROCESSING\n\n" + DONE)

    assert [frame.events for frame in frames] == [[Ping()], [End()]]


@pytest.mark.parametrize("nothing", [b"event: ping\n\n", b"data:\n\n", b"event: ping\ndata: \n\n"])
def test_an_event_without_data_says_nothing_and_is_not_passed_on(nothing: bytes) -> None:
    frames = frames_of(nothing + DONE)

    assert [frame.events for frame in frames] == [[], [End()]]
    assert OPENAI.writer(CHAT, usage=True).write(frames[0].events, frames[0]) == b""


def test_nothing_follows_the_end() -> None:
    assert events_of(DONE + chunk(delta(content="a"))) == [End()]


def test_the_end_mark_in_a_text_is_a_text() -> None:
    assert meaning(chunk(delta(content="[DONE]"))) == [TextDelta(0, "[DONE]")]


@pytest.mark.parametrize(
    ("data", "failed"),
    [
        pytest.param(
            {"error": {"message": "Bad", "type": "t", "code": "c", "param": "p"}},
            Failed("Bad", "c", "t", 502, "p", dialect="openai"),
            id="an error",
        ),
        pytest.param(
            {"error": {"message": "Bad", "code": "insufficient_quota"}},
            Failed("Bad", "insufficient_quota", None, 429, retryable=False, dialect="openai"),
            id="not worth another try",
        ),
        pytest.param({"error": "Bad"}, Failed("Bad", "upstream_error", None, 502, dialect="openai"), id="text"),
        pytest.param(
            {"id": "1", "choices": [delta(finish="error")], "error": {"message": "Bad", "code": 429}},
            Failed("Bad", "upstream_error", None, 429, dialect="openai"),
            id="OpenRouter",
        ),
        pytest.param(
            {"object": "error", "message": "Bad", "code": 400},
            Failed("Bad", "upstream_error", None, 400, retryable=False, dialect="openai"),
            id="vLLM",
        ),
    ],
)
def test_an_error_ends_the_stream(data: object, failed: Failed) -> None:
    assert events_of(event(data) + chunk(delta(content="a"))) == [failed]


def test_an_error_about_our_key_tells_nothing_of_it() -> None:
    (failed,) = events_of(event({"error": {"message": "bad key sk-123", "code": "invalid_api_key"}}))

    assert isinstance(failed, Failed)
    assert failed.code == "upstream_auth"
    assert "sk-123" not in failed.message
    assert failed.body is None
    assert not failed.retryable


@pytest.mark.parametrize(
    ("data", "kept"),
    [({"error": {"message": "Bad", "own": 1}}, True), ({"error": "Bad"}, True), ({"object": "error"}, False)],
)
def test_an_error_keeps_the_providers_own_words_where_clients_can_read_them(data: object, kept: bool) -> None:
    (failed,) = events_of(event(data))

    assert isinstance(failed, Failed)
    assert failed.body == (event(data)[6:-2] if kept else None)


@pytest.mark.parametrize(
    "data",
    [b"{", b"[]", b'"x"', b"5", b'{"choices":5}', b'{"choices":[{"delta":{"content":5}}]}', b"{" * 100_000, b'"\xff"'],
)
def test_what_is_no_chunk_is_garbage(data: bytes) -> None:
    with pytest.raises(UpstreamGarbage):
        frames_of(b"data: " + data + b"\n\n")


def test_what_came_before_garbage_in_one_read_is_not_lost() -> None:
    frames = frames_of(chunk(delta(content="a")) + b"data: {\n\n" + chunk(delta(content="b")))

    assert frames[0].events == [START, TextDelta(0, "a")]
    (failed,) = frames[1].events
    assert isinstance(failed, Failed)
    assert failed.code == "upstream_garbage"
    assert len(frames) == 2


def test_an_endless_event_is_garbage() -> None:
    reader = OPENAI.reader(COMPLETIONS)

    with pytest.raises(UpstreamGarbage, match="too long"):
        reader.feed(b"data: " + b"x" * (1 << 26))


@pytest.mark.parametrize(
    ("rest", "raw"),
    [
        (b"data: [DONE]", b"data: [DONE]\n\n"),
        (b"data: [DONE]\n", b"data: [DONE]\n\n"),
        (b"data: [DONE]\r\n", b"data: [DONE]\r\n\r\n"),
        (b"data: [DONE]\r", b"data: [DONE]\r\r"),
        (b"data: [DONE]\n\r", b"data: [DONE]\n\r"),
    ],
)
def test_an_end_without_its_blank_line_counts(rest: bytes, raw: bytes) -> None:
    frames = frames_of(rest)

    assert [(frame.raw, frame.events) for frame in frames] == [(raw, [End()])]


@pytest.mark.parametrize("rest", [b"data: [DON", b'data: {"id":', b": comment", b"event: x\n", b"\n"])
def test_an_end_cut_short_does_not(rest: bytes) -> None:
    assert not any(End() in frame.events for frame in frames_of(chunk(delta(content="a")) + rest)[1:])


def test_a_whole_last_chunk_counts() -> None:
    stream = chunk(delta(content="a"))

    assert meaning(stream[:-2]) == [TextDelta(0, "a")]


@given(st.binary(max_size=60), st.integers(1, 60))
def test_only_garbage_is_raised_for_any_bytes(data: bytes, cut: int) -> None:
    reader = OPENAI.reader(COMPLETIONS)
    try:
        for piece in (b"data: {", data[:cut], data[cut:], b"}\n\n"):
            reader.feed(piece)
        reader.end()
    except UpstreamGarbage:
        pass
