"""Streams are written as they were read, but for what a processor changed; those of other protocols in full."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest

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
from llmproxy_core.frame import Frame
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
    payloads,
)
from tests.recordings import Recording, without_usage_chunk

START = Start("c1", "m", 7)
STOP = Finished(0, Finish(FinishReason.STOP, "end_turn"))

Change = Callable[[list[ChatEvent]], Sequence[ChatEvent]]


def rewritten(stream: bytes, change: Change, *, usage: bool = True) -> bytes:
    """*stream* with the events of each frame changed."""
    writer = OPENAI.writer(CHAT, usage=usage)
    return b"".join(writer.write(change(frame.events), frame) for frame in frames_of(stream))


def rendered(events: Sequence[ChatEvent], *, usage: bool = False) -> bytes:
    """*events* that come from another protocol."""
    writer = OPENAI.writer(CHAT, usage=usage)
    return b"".join(writer.write([each], None) for each in events)


def replacing(old: ChatEvent, *new: ChatEvent) -> Change:
    """Put *new* where *old* is."""
    return lambda events: [each for was in events for each in (new if was == old else (was,))]


# -- untouched -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recording", STREAMS, ids=str)
@pytest.mark.parametrize("usage", [False, True])
@pytest.mark.parametrize("copied", [False, True], ids=["the same list", "equal events"])
def test_an_untouched_recording_is_written_as_it_was_read(recording: Recording, usage: bool, copied: bool) -> None:
    writer = OPENAI.writer(api_of(recording), usage=usage)
    whole = recording.response_body

    out = b"".join(
        writer.write([attrs.evolve(each) for each in frame.events] if copied else frame.events, frame)
        for frame in frames_of(whole, api_of(recording))
    )

    assert out == (whole if usage else without_usage_chunk(whole))


def test_a_block_that_no_client_may_see_is_left_out() -> None:
    stream = b"retry: 5\n\n" + chunk(delta(content="a")) + b": comment\n\n" + DONE

    assert rewritten(stream, lambda events: events) == stream.removeprefix(b"retry: 5\n\n")


def test_an_error_is_left_to_whoever_ends_the_stream() -> None:
    assert rewritten(event({"error": {"message": "Bad"}}), lambda events: events) == b""


# -- changed -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "spelled", "old", "new"),
    [
        ({"content": "old"}, "content", TextDelta(0, "old", b'{"content":["old"]}'), TextDelta(0, "new")),
        ({"refusal": "old"}, "refusal", RefusalDelta(0, "old"), RefusalDelta(0, "new")),
        (
            {"reasoning": "old"},
            "content",
            ReasoningDelta(0, "old", member="reasoning"),
            ReasoningDelta(0, "new", member="reasoning"),
        ),
        (
            {"function_call": {"name": "f", "arguments": "old"}},
            "content",
            ToolCallDelta(0, 0, "old"),
            ToolCallDelta(0, 0, "new"),
        ),
    ],
    ids=["text", "refusal", "thinking", "arguments"],
)
def test_probabilities_that_spell_what_was_changed_go_with_it(
    said: dict[str, Any], spelled: str, old: ChatEvent, new: ChatEvent
) -> None:
    out = rewritten(chunk(delta(logprobs={spelled: ["old"]}, **said)), replacing(old, new))

    assert b"new" in out
    assert b"old" not in out
    assert next(payloads(out))["choices"][0]["logprobs"] is None


SPACED = b'data: { "id":"c1", "x": 1.0, "choices" : [ {"index":0, "delta":{ "content" : "old", "y":2.0 }} ] }\n\n'


def test_a_changed_text_is_all_that_changes() -> None:
    out = rewritten(SPACED, replacing(TextDelta(0, "old"), TextDelta(0, 'n"ew')))

    assert out == SPACED.replace(b'"old"', b'"n\\"ew"')


def test_a_changed_text_is_all_that_changes_among_several_choices() -> None:
    stream = chunk(delta(0, content="old"), delta(1, content="old"), x=1)

    out = rewritten(stream, replacing(TextDelta(1, "old"), TextDelta(1, "new")))

    assert out == stream[::-1].replace(b'"old"'[::-1], b'"new"'[::-1], 1)[::-1]


def test_the_other_lines_of_a_changed_event_stay() -> None:
    stream = b": hi\nevent: message\nid: 7\n" + chunk(delta(content="old"))

    assert rewritten(stream, replacing(TextDelta(0, "old"), TextDelta(0, "new"))) == stream.replace(b"old", b"new")


def test_data_of_several_lines_becomes_one_event_of_the_same_name() -> None:
    stream = b'event: e\r\ndata: {"id":"c1",\r\ndata: "choices":[{"delta":{"content":"old"}}]}\r\n\r\n'

    out = rewritten(stream, replacing(TextDelta(0, "old"), TextDelta(0, "new")))

    assert out.startswith(b"event: e\ndata: ")
    assert events_of(out) == [Start("c1", ""), TextDelta(0, "new")]


@pytest.mark.parametrize(
    ("choice", "old", "new", "changed"),
    [
        pytest.param(
            delta(content="old", logprobs={"content": [{"token": "old"}]}),
            TextDelta(0, "old", b'{"content":[{"token":"old"}]}'),
            TextDelta(0, "new"),
            delta(content="new"),
            id="log probabilities spell the old text",
        ),
        pytest.param(
            delta(content="old", logprobs={"content": []}),
            TextDelta(0, "old", b'{"content":[]}'),
            TextDelta(0, "new", b"[1]"),
            delta(content="new", logprobs=[1]),
            id="new log probabilities",
        ),
        pytest.param(
            delta(reasoning="old", reasoning_details=["old"], role="assistant"),
            ReasoningDelta(0, "old", member="reasoning"),
            ReasoningDelta(0, "new", member="reasoning"),
            delta(reasoning="new", role="assistant"),
            id="thinking and its details",
        ),
        pytest.param(
            delta(reasoning="old", reasoning_content="old"),
            ReasoningDelta(0, "old", provider="openai", member="reasoning_content"),
            ReasoningDelta(0, "new"),
            delta(reasoning="new", reasoning_content="new"),
            id="thinking said twice",
        ),
        pytest.param(
            delta(refusal="old", content=None),
            RefusalDelta(0, "old"),
            RefusalDelta(0, "new"),
            delta(refusal="new", content=None),
            id="refusal",
        ),
        pytest.param(
            delta(audio={"id": "a", "data": "AA", "transcript": "old"}),
            AudioDelta(0, "AA", "old", "a"),
            AudioDelta(0, None, "new", "a"),
            delta(audio={"id": "a", "transcript": "new"}),
            id="speech",
        ),
        pytest.param(
            delta(
                tool_calls=[
                    {"index": 3, "function": {"arguments": "x"}},
                    {"index": 4, "z": 1, "function": {"arguments": "old"}},
                ]
            ),
            ToolCallDelta(0, 1, "old"),
            ToolCallDelta(0, 1, "new"),
            delta(
                tool_calls=[
                    {"index": 3, "function": {"arguments": "x"}},
                    {"index": 4, "z": 1, "function": {"arguments": "new"}},
                ]
            ),
            id="arguments",
        ),
        pytest.param(
            delta(tool_calls=[{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}]),
            ToolCallStart(0, 0, "a", "f"),
            ToolCallStart(0, 0, "b", "g"),
            delta(tool_calls=[{"index": 0, "id": "b", "function": {"name": "g", "arguments": "{}"}}]),
            id="name and id",
        ),
        pytest.param(
            delta(tool_calls=[{"index": 0, "id": "a", "custom": {"name": "f", "input": "old"}}]),
            ToolCallDelta(0, 0, "old"),
            ToolCallDelta(0, 0, "new"),
            delta(tool_calls=[{"index": 0, "id": "a", "custom": {"name": "f", "input": "new"}}]),
            id="input of a custom tool",
        ),
        pytest.param(
            delta(function_call={"name": "f", "arguments": "old"}),
            ToolCallDelta(0, 0, "old"),
            ToolCallDelta(0, 0, "new"),
            delta(function_call={"name": "f", "arguments": "new"}),
            id="legacy arguments",
        ),
        pytest.param(
            delta(content=[{"type": "text", "text": "old"}, {"type": "odd"}]),
            TextDelta(0, "old"),
            TextDelta(0, "new"),
            delta(content=[{"type": "text", "text": "new"}, {"type": "odd"}]),
            id="text in a list",
        ),
        pytest.param(
            delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "old"}]}]),
            ReasoningDelta(0, "old", provider="openai", member="thinking"),
            ReasoningDelta(0, "new", provider="openai", member="thinking"),
            delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "new"}]}]),
            id="thinking in a list",
        ),
        pytest.param(
            delta(content=[{"type": "refusal", "refusal": "old"}]),
            RefusalDelta(0, "old"),
            RefusalDelta(0, "new"),
            delta(content=[{"type": "refusal", "refusal": "new"}]),
            id="refusal in a list",
        ),
        pytest.param(
            delta(annotations=[{"type": "a", "a": {"url": "u"}}]),
            CitationAdded(0, Citation("a", "u")),
            CitationAdded(0, Citation("url_citation", "v", "t", start=1, end=2)),
            delta(
                annotations=[
                    {
                        "type": "url_citation",
                        "url_citation": {"url": "v", "title": "t", "start_index": 1, "end_index": 2},
                    }
                ]
            ),
            id="citation",
        ),
        pytest.param(
            {"text": "old", "index": 0, "logprobs": {"tokens": ["old"]}},
            TextDelta(0, "old", b'{"tokens":["old"]}'),
            TextDelta(0, "new"),
            {"text": "new", "index": 0, "logprobs": None},
            id="legacy text",
        ),
        pytest.param(
            delta(finish="stop"),
            Finished(0, Finish(FinishReason.STOP, "stop")),
            Finished(0, Finish(FinishReason.CONTENT_FILTER)),
            delta(finish="content_filter"),
            id="finish",
        ),
    ],
)
def test_a_changed_event_changes_its_member(
    choice: dict[str, Any], old: ChatEvent, new: ChatEvent, changed: dict[str, Any]
) -> None:
    calls = [{"index": 3, "id": "a", "function": {"name": "f"}}, {"index": 4, "id": "b", "function": {"name": "g"}}]
    before = chunk(delta(content="first")) + (chunk(delta(tool_calls=calls)) if '"x"' in json.dumps(choice) else b"")

    out = rewritten(before + chunk(choice, x=1), replacing(old, new))

    assert out.startswith(before)
    assert next(payloads(out[len(before) :])) == next(payloads(chunk(changed, x=1)))


@pytest.mark.parametrize(
    ("choice", "gone", "left"),
    [
        pytest.param(
            delta(content="old", finish="stop"), TextDelta(0, "old"), delta(content="", finish="stop"), id="text"
        ),
        pytest.param(
            {"text": "old", "index": 0, "finish_reason": "stop"},
            TextDelta(0, "old"),
            {"text": "", "index": 0, "finish_reason": "stop"},
            id="legacy text",
        ),
        pytest.param(
            delta(reasoning_content="old", finish="stop"),
            ReasoningDelta(0, "old", provider="openai", member="reasoning_content"),
            delta(reasoning_content="", finish="stop"),
            id="thinking",
        ),
        pytest.param(
            delta(content="a", finish="stop"),
            Finished(0, Finish(FinishReason.STOP, "stop")),
            delta(content="a"),
            id="finish",
        ),
        pytest.param(
            delta(content=[{"type": "text", "text": "old"}, {"type": "odd"}], finish="stop"),
            TextDelta(0, "old"),
            delta(content=[{"type": "odd"}], finish="stop"),
            id="text in a list",
        ),
        pytest.param(
            delta(content=[{"type": "odd"}], finish="stop"),
            OpaqueEvent("odd", b'{"type":"odd"}', 0, "openai.chat"),
            delta(finish="stop"),
            id="the only part of a list",
        ),
        pytest.param(
            delta(annotations=[{"type": "a"}], content="x"),
            CitationAdded(0, Citation("a")),
            delta(content="x"),
            id="citation",
        ),
        pytest.param(
            delta(tool_calls=[{"index": 0, "id": "a", "function": {"name": "f"}}], content="x"),
            ToolCallStart(0, 0, "a", "f"),
            delta(content="x"),
            id="call",
        ),
        pytest.param(
            delta(audio={"id": "a", "data": "AA"}, content="x"),
            AudioDelta(0, "AA", None, "a"),
            delta(audio={"id": "a"}, content="x"),
            id="speech",
        ),
        pytest.param(
            delta(function_call={"name": "f", "arguments": "old"}, content="x"),
            ToolCallDelta(0, 0, "old"),
            delta(function_call={"name": "f", "arguments": ""}, content="x"),
            id="legacy arguments",
        ),
    ],
)
def test_a_removed_event_leaves_the_rest_of_its_chunk(
    choice: dict[str, Any], gone: ChatEvent, left: dict[str, Any]
) -> None:
    before = chunk(delta(content="first"))

    out = rewritten(before + chunk(choice, x=1), replacing(gone))

    assert list(payloads(out))[1] == next(payloads(chunk(left, x=1)))


@pytest.mark.parametrize("new", [[], [TextDelta(0, "")]], ids=["removed", "emptied"])
def test_a_chunk_of_which_nothing_is_left_is_not_sent(new: list[ChatEvent]) -> None:
    """A filter that holds a text back for now."""
    stream = chunk(delta(content="first")) + chunk(delta(content="held")) + DONE

    assert rewritten(stream, replacing(TextDelta(0, "held"), *new)) == chunk(delta(content="first")) + DONE


def test_the_first_chunk_is_sent_even_if_its_text_is_held() -> None:
    stream = chunk(delta(role="assistant", content="held"))

    out = rewritten(stream, replacing(TextDelta(0, "held"), TextDelta(0, "")))

    assert out == chunk(delta(role="assistant", content=""))


def test_what_a_filter_held_comes_before_the_finish() -> None:
    stream = chunk(delta(content="first")) + chunk(delta(finish="stop"))
    finished = Finished(0, Finish(FinishReason.STOP, "stop"))

    out = rewritten(stream, replacing(finished, TextDelta(0, "held"), finished))

    assert out.startswith(chunk(delta(content="first")))
    assert out.endswith(chunk(delta(finish="stop")))
    assert list(payloads(out))[1] == {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 7,
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": "held"}, "logprobs": None, "finish_reason": None}],
        "usage": None,
    }


def test_what_a_filter_held_joins_a_text_of_the_same_chunk() -> None:
    stream = chunk(delta(content="first")) + chunk(delta(content="last", finish="stop"))

    out = rewritten(stream, replacing(TextDelta(0, "last"), TextDelta(0, "held, "), TextDelta(0, "new")))

    assert out == stream.replace(b"last", b"held, new")


@pytest.mark.parametrize(
    ("first", "second", "member", "text"),
    [
        (ReasoningDelta(0, "a", member="reasoning"), ReasoningDelta(0, "b"), "reasoning", "ab"),
        (RefusalDelta(0, "a"), RefusalDelta(0, "b"), "refusal", "ab"),
    ],
)
def test_other_texts_of_one_channel_join_too(first: ChatEvent, second: ChatEvent, member: str, text: str) -> None:
    old: dict[str, Any] = {member: "a"}
    new: dict[str, Any] = {member: text}

    out = rewritten(chunk(delta(**old)), replacing(first, first, second))

    assert out == chunk(delta(**new))


def test_pieces_of_arguments_join_too() -> None:
    call = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}}
    piece = ToolCallDelta(0, 0, "{")

    out = rewritten(chunk(delta(tool_calls=[call])), replacing(piece, piece, ToolCallDelta(0, 0, "}")))

    assert out == chunk(delta(tool_calls=[call])).replace(b'"{"', b'"{}"')


def test_what_cannot_join_comes_in_a_chunk_of_its_own() -> None:
    stream = chunk(delta(audio={"transcript": "a"}))
    spoken = AudioDelta(0, None, "a")

    out = rewritten(stream, replacing(spoken, spoken, AudioDelta(0, None, "b")))

    assert events_of(out) == [START, spoken, AudioDelta(0, None, "b")]


def test_what_a_filter_held_of_arguments_goes_to_the_servers_own_index() -> None:
    """The provider counts its only call as 1, and later pieces have to agree with it."""
    call = {"index": 1, "id": "a", "function": {"name": "f", "arguments": "{"}}
    stream = chunk(delta(tool_calls=[call])) + chunk(delta(finish="tool_calls"))
    finished = Finished(0, Finish(FinishReason.TOOL_CALLS, "tool_calls"))

    out = rewritten(stream, replacing(finished, ToolCallDelta(0, 0, "}"), finished))

    (piece,) = list(payloads(out))[1]["choices"][0]["delta"]["tool_calls"]
    assert piece == {"index": 1, "function": {"arguments": "}"}}


@pytest.mark.parametrize(
    ("choice", "member"),
    [
        (delta(reasoning="hm"), {"reasoning": "held"}),
        (delta(reasoning_content="hm"), {"reasoning_content": "held"}),
        (
            delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]),
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "held"}]}]},
        ),
    ],
)
def test_what_a_filter_held_of_thinking_goes_to_the_servers_own_member(
    choice: dict[str, Any], member: dict[str, Any]
) -> None:
    finished = Finished(0, Finish(FinishReason.STOP, "stop"))

    out = rewritten(
        chunk(choice) + chunk(delta(finish="stop")), replacing(finished, ReasoningDelta(0, "held"), finished)
    )

    assert list(payloads(out))[1]["choices"][0]["delta"] == member


def test_what_a_filter_held_can_come_before_the_end_mark() -> None:
    out = rewritten(chunk(delta(content="first")) + DONE, replacing(End(), TextDelta(0, "held"), End()))

    assert events_of(out) == [START, TextDelta(0, "first"), TextDelta(0, "held"), End()]


def test_an_event_that_comes_last_is_written_last() -> None:
    finished = Finished(0, Finish(FinishReason.LENGTH))

    out = rewritten(chunk(delta(content="a")), lambda events: [*events, finished])

    assert out.startswith(chunk(delta(content="a")))
    assert events_of(out)[-1] == Finished(0, Finish(FinishReason.LENGTH, "length"))


def test_the_end_mark_can_be_removed() -> None:
    assert rewritten(chunk(delta(content="a")) + DONE, replacing(End())) == chunk(delta(content="a"))


def test_a_changed_start_changes_every_chunk() -> None:
    stream = chunk(delta(content="a")) + chunk(delta(content="b"), x=1) + DONE

    out = rewritten(stream, replacing(START, Start("c2", "alias", 7)))

    assert out == stream.replace(b'"c1"', b'"c2"').replace(b'"m"', b'"alias"')


def test_usage_can_be_changed_and_removed() -> None:
    stream = chunk(delta(finish="stop"), usage={"prompt_tokens": 1, "completion_tokens": 2})
    was = UsageReported(Usage(1, 2))

    changed = rewritten(stream, replacing(was, UsageReported(Usage(5, 6))))
    removed = rewritten(stream, replacing(was))

    assert UsageReported(Usage(5, 6)) in events_of(changed)
    assert removed == stream.replace(b'{"prompt_tokens":1,"completion_tokens":2}', b"null")


def test_a_changed_usage_chunk_is_still_withheld() -> None:
    stream = chunk(delta(content="a")) + chunk(usage={"prompt_tokens": 1})

    out = rewritten(stream, replacing(UsageReported(Usage(1)), UsageReported(Usage(2))), usage=False)

    assert out == chunk(delta(content="a"))


# -- from another protocol -----------------------------------------------------------------------------------------


def test_a_stream_of_another_protocol_is_written_in_full() -> None:
    out = rendered(
        [
            Start("msg_1", "claude", 7, "priority", "fp"),
            Ping(),
            ReasoningDelta(0, "hm", signature="s"),
            TextDelta(0, "a"),
            TextDelta(0, ""),
            OpaqueEvent("server_tool_use", b"{}"),
            ToolCallStart(0, 0, "t1", "f"),
            ToolCallDelta(0, 0, "{}"),
            Finished(0, Finish(FinishReason.TOOL_CALLS, "tool_use")),
            UsageReported(Usage(3, 0)),
            UsageReported(Usage(3, 4)),
            End(),
        ],
        usage=True,
    )

    assert out.endswith(DONE)
    chunks: list[Any] = list(payloads(out))
    shared = {
        "id": "msg_1",
        "object": "chat.completion.chunk",
        "created": 7,
        "model": "claude",
        "service_tier": "priority",
        "system_fingerprint": "fp",
    }
    assert all(each.items() >= shared.items() for each in chunks)
    assert [each["choices"] for each in chunks[:-1]] == [
        [delta(role="assistant", content="")],
        [delta(reasoning_content="hm")],
        [delta(content="a")],
        [delta(tool_calls=[{"index": 0, "id": "t1", "type": "function", "function": {"name": "f", "arguments": ""}}])],
        [delta(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}])],
        [delta(finish="tool_calls")],
    ]
    assert all(each["usage"] is None for each in chunks[:-1])
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 7


def test_usage_nobody_asked_for_is_not_written() -> None:
    out = rendered([START, STOP, UsageReported(Usage(3, 4)), End()])

    assert b"usage" not in out
    assert b'"finish_reason":"stop"' in out


def test_each_choice_begins_with_its_role() -> None:
    out = rendered([START, TextDelta(1, "b"), Finished(2, Finish(FinishReason.LENGTH))])

    assert [each["choices"][0] for each in payloads(out)] == [
        delta(0, role="assistant", content=""),
        delta(1, role="assistant", content=""),
        delta(1, content="b"),
        delta(2, role="assistant", content=""),
        delta(2, finish="length"),
    ]


@pytest.mark.parametrize(
    ("events", "members"),
    [
        ([RefusalDelta(0, "no")], [{"refusal": "no"}]),
        ([AudioDelta(0, "AA", "hi", "a")], [{"audio": {"id": "a", "data": "AA", "transcript": "hi"}}]),
        (
            [ToolCallStart(0, 0, "a", "f", "custom"), ToolCallDelta(0, 0, "x")],
            [
                {"tool_calls": [{"index": 0, "id": "a", "type": "custom", "custom": {"name": "f", "input": ""}}]},
                {"tool_calls": [{"index": 0, "custom": {"input": "x"}}]},
            ],
        ),
        (
            [ToolCallStart(0, 0, "", "f", "legacy"), ToolCallDelta(0, 0, "x")],
            [{"function_call": {"name": "f", "arguments": ""}}, {"function_call": {"arguments": "x"}}],
        ),
        (
            [ToolCallStart(0, 0, "a", "f", signature="s")],
            [
                {
                    "tool_calls": [
                        {
                            "index": 0,
                            "id": "a",
                            "type": "function",
                            "function": {"name": "f", "arguments": ""},
                            "extra_content": {"google": {"thought_signature": "s"}},
                        }
                    ]
                }
            ],
        ),
    ],
    ids=str,
)
def test_events_have_their_members(events: list[ChatEvent], members: list[object]) -> None:
    chunks: list[Any] = list(payloads(rendered([START, *events])))

    assert [each["choices"][0]["delta"] for each in chunks[1:]] == members


def test_all_citations_of_a_choice_come_in_one_chunk_before_its_end_since_sdks_lose_those_of_others() -> None:
    cited = [CitationAdded(0, Citation("web", url, "t")) for url in ("u", "v")]
    chunks: list[Any] = list(payloads(rendered([START, TextDelta(0, "ab"), *cited, TextDelta(0, "c"), STOP])))

    deltas = [(each["choices"][0]["delta"], each["choices"][0]["finish_reason"]) for each in chunks[1:]]
    place = {"title": "t", "start_index": 0, "end_index": 2}
    annotations = [{"type": "url_citation", "url_citation": {"url": url, **place}} for url in ("u", "v")]
    assert deltas == [
        ({"content": "ab"}, None),
        ({"content": "c"}, None),
        ({"annotations": annotations}, None),
        ({}, "stop"),
    ]


def test_very_many_citations_come_in_several_chunks_and_are_counted() -> None:
    cited = [CitationAdded(0, Citation("web", str(n), "t")) for n in range(2500)]
    chunks: list[Any] = list(payloads(rendered([START, *cited, End()])))

    lists = [found for each in chunks if each["choices"] and (found := each["choices"][0]["delta"].get("annotations"))]
    assert [len(each) for each in lists] == [1000, 1000, 500]
    assert [it["url_citation"]["url"] for each in lists for it in each] == [str(n) for n in range(2500)]
    assert [it.get("index") for each in lists for it in each] == [None] * 1000 + list(range(1000, 2500))


def test_log_probabilities_are_written() -> None:
    out = rendered([START, TextDelta(0, "a", b'{"content":[]}')])

    assert list(payloads(out))[1]["choices"] == [delta(content="a", logprobs={"content": []})]


def test_a_legacy_call_ends_in_the_legacy_word() -> None:
    out = rendered([START, ToolCallStart(0, 0, "", "f", "legacy"), Finished(0, Finish(FinishReason.TOOL_CALLS))])

    assert b'"finish_reason":"function_call"' in out


@pytest.mark.parametrize("events", [[Ping()], [Failed("Bad")], [OpaqueEvent("x", b"{}")]], ids=str)
def test_some_events_have_no_bytes(events: list[ChatEvent]) -> None:
    assert rendered(events) == b""


def test_a_start_without_a_time_gets_one_since_clients_want_a_number() -> None:
    (first,) = payloads(rendered([Start("1", "m")]))

    assert first["created"] > 1_600_000_000


def test_a_legacy_stream_of_another_protocol_has_bare_texts() -> None:
    writer = OPENAI.writer(COMPLETIONS, usage=False)
    events: list[ChatEvent] = [START, TextDelta(0, "a"), ReasoningDelta(0, "hm"), RefusalDelta(0, "no"), STOP, End()]

    out = b"".join(writer.write([each], None) for each in events)

    shared = {"id": "c1", "object": "text_completion", "created": 7, "model": "m"}
    assert list(payloads(out)) == [
        {**shared, "choices": [{"text": text, "index": 0, "logprobs": None, "finish_reason": finish}]}
        for text, finish in (("a", None), ("no", None), ("", "stop"))
    ]
    assert out.endswith(DONE)


@pytest.mark.parametrize("recording", STREAMS, ids=str)
def test_a_recording_written_anew_means_the_same(recording: Recording) -> None:
    """Its events are given to the writer as if they came from another protocol."""
    api = api_of(recording)
    writer = OPENAI.writer(api, usage=True)

    events = [each for frame in frames_of(recording.response_body, api) for each in frame.events]
    out = b"".join(writer.write([each], None) for each in events)

    def said(events: Sequence[ChatEvent]) -> list[ChatEvent]:
        kept = [each for each in events if not isinstance(each, Ping)]
        return [
            attrs.evolve(each, finish=Finish(each.finish.reason)) if isinstance(each, Finished) else each
            for each in kept
        ]

    assert said(events_of(out, api)) == said(events)


def test_a_frame_is_not_needed_twice() -> None:
    """Writers are per stream: what one learned does not leak into another."""
    frame = frames_of(chunk(delta(content="a")))[0]
    assert isinstance(frame, Frame)

    first, second = OPENAI.writer(CHAT, usage=True), OPENAI.writer(CHAT, usage=False)

    assert first.write(frame.events, frame) == second.write(frame.events, frame) == frame.raw
