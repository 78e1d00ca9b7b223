"""Streams for a client: events of whatever order in the strict order of the protocol, and filters at work on ours."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmproxy_anthropic import AnthropicDialect
from llmproxy_anthropic.apis import MESSAGES
from llmproxy_anthropic.stream_write import MessageWriter

from llmproxy_core import MOST_FINISH_WORDS, Carried, Replace, UpstreamCut, UpstreamGarbage, Usage, seal, unseal
from llmproxy_core.chat import (
    ChatEvent,
    Citation,
    CitationAdded,
    End,
    Failed,
    Finish,
    Finished,
    FinishReason,
    Ping,
    ReasoningDelta,
    RefusalDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    UsageReported,
)
from llmproxy_core.reply_events import Assembler
from llmproxy_core.stages import Filtering, apply_to_events, apply_to_reply
from llmproxy_core.testing.grammar import check_stream

DIALECT = AnthropicDialect()
START = Start("chatcmpl-1", "gpt-5")
USAGE = UsageReported(Usage(100, 7, cached_input_tokens=40, cache_write_tokens=10))
STOP = Finished(0, Finish(FinishReason.STOP, "stop"))
CALLED = Finished(0, Finish(FinishReason.TOOL_CALLS, "tool_calls"))


def write(*events: ChatEvent) -> bytes:
    writer = DIALECT.writer(MESSAGES, usage=True)
    return b"".join(writer.write([event], None) for event in events)


def parsed(stream: bytes) -> list[dict[str, Any]]:
    return [json.loads(block.partition(b"data: ")[2]) for block in stream.split(b"\n\n") if block]


def checked(*events: ChatEvent) -> list[dict[str, Any]]:
    stream = write(*events)
    assert check_stream("anthropic", stream) == []
    return parsed(stream)


def blocks(events: list[dict[str, Any]]) -> list[Any]:
    """What each block says: its kind, and its deltas joined."""
    found: list[Any] = []
    for event in events:
        if event["type"] == "content_block_start":
            found.append([event["content_block"]["type"], ""])
        elif event["type"] == "content_block_delta":
            delta = event["delta"]
            found[-1][1] += delta.get("text") or delta.get("thinking") or delta.get("partial_json") or ""
    return [tuple(it) for it in found]


# -- order -----------------------------------------------------------------------------------------------------


def test_the_events_have_their_order_and_names() -> None:
    events = checked(START, TextDelta(0, "Hel"), TextDelta(0, "lo"), STOP, USAGE, End())

    assert [event["type"] for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert events[0]["message"]["id"] == "chatcmpl-1"
    assert events[5]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert events[5]["usage"] == {
        "input_tokens": 50,
        "cache_creation_input_tokens": 10,
        "cache_read_input_tokens": 40,
        "output_tokens": 7,
    }


def test_usage_that_is_known_by_then_is_told_where_the_message_begins() -> None:
    writer = DIALECT.writer(MESSAGES, usage=True)

    stream = writer.write([START, TextDelta(0, "a"), USAGE], None)

    assert parsed(stream)[0]["message"]["usage"]["input_tokens"] == 50


def test_calls_that_interleave_come_one_after_the_other() -> None:
    events = checked(
        START,
        ToolCallStart(0, 0, "a", "one"),
        ToolCallStart(0, 1, "b", "two"),
        ToolCallDelta(0, 0, '{"x":'),
        ToolCallDelta(0, 1, '{"y":'),
        ToolCallDelta(0, 0, "1}"),
        ToolCallDelta(0, 1, "2}"),
        CALLED,
        USAGE,
        End(),
    )

    assert blocks(events) == [("tool_use", '{"x":1}'), ("tool_use", '{"y":2}')]
    assert [event["index"] for event in events if event["type"] == "content_block_start"] == [0, 1]
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


def test_a_call_that_is_whole_lets_the_next_block_through_at_once() -> None:
    writer = DIALECT.writer(MESSAGES, usage=True)
    writer.write([START, ToolCallStart(0, 0, "a", "one"), ToolCallDelta(0, 0, '{"x":1}')], None)

    assert b"text_delta" in writer.write([TextDelta(0, "and")], None)


def test_a_call_without_arguments_has_an_empty_input() -> None:
    events = checked(START, ToolCallStart(0, 0, "a", "one"), ToolCallDelta(0, 0, ""), CALLED, USAGE, End())

    assert blocks(events) == [("tool_use", "")]
    assert events[1]["content_block"] == {"type": "tool_use", "id": "a", "name": "one", "input": {}}


def test_a_stop_with_calls_is_tool_use_and_a_refusal_is_told() -> None:
    called = checked(START, ToolCallStart(0, 0, "a", "one"), ToolCallDelta(0, 0, "{}"), STOP, USAGE, End())
    refused = checked(START, RefusalDelta(0, "I cannot"), STOP, USAGE, End())

    assert called[-2]["delta"]["stop_reason"] == "tool_use"
    assert refused[-2]["delta"]["stop_reason"] == "refusal"
    assert blocks(refused) == [("text", "I cannot")]


@pytest.mark.parametrize(
    ("finish", "word"),
    [
        (Finish(FinishReason.LENGTH, "length"), "max_tokens"),
        (Finish(FinishReason.CONTENT_FILTER, "SAFETY"), "refusal"),
        (Finish(FinishReason.STOP, "stop", stop_sequence="END"), "stop_sequence"),
        (Finish(FinishReason.STOP, "pause_turn"), "pause_turn"),
        (Finish(FinishReason.TOOL_CALLS, "tool_calls"), "end_turn"),  # none came
        (Finish(FinishReason.ERROR, "MALFORMED_FUNCTION_CALL"), "refusal"),
    ],
)
def test_how_it_ended(finish: Finish, word: str) -> None:
    events = checked(START, TextDelta(0, "a"), Finished(0, finish), USAGE, End())

    assert events[-2]["delta"]["stop_reason"] == word


def test_an_error_is_no_normal_end() -> None:
    events = checked(START, Finished(0, Finish(FinishReason.ERROR, "OTHER")), USAGE, End())

    assert "OTHER" in events[-2]["delta"]["stop_details"]["explanation"]


def test_only_the_first_choice_is_given() -> None:
    other = Finished(1, Finish(FinishReason.LENGTH, "length"))
    events = checked(START, TextDelta(1, "no"), TextDelta(0, "yes"), other, STOP, USAGE, End())

    assert blocks(events) == [("text", "yes")]
    assert events[-2]["delta"]["stop_reason"] == "end_turn"


def test_citations_wait_for_their_text() -> None:
    cited = CitationAdded(0, Citation("url_citation", url="https://example.com", title="t"))
    events = checked(START, cited, TextDelta(0, "a"), cited, STOP, USAGE, End())

    assert [event["delta"]["type"] for event in events if event["type"] == "content_block_delta"] == [
        "citations_delta",
        "text_delta",
        "citations_delta",
    ]


def test_pings_do_not_come_before_the_message() -> None:
    events = checked(Ping(), START, Ping(), TextDelta(0, "a"), Ping(), STOP, USAGE, End())

    assert [event["type"] for event in events].count("ping") == 1


# -- thinking of others ----------------------------------------------------------------------------------------


def test_thinking_of_others_is_sealed_for_the_way_back() -> None:
    events = checked(
        START,
        ReasoningDelta(0, "hm ", provider="openai-responses", id="rs_1", summary=True),
        ReasoningDelta(0, "so", provider="openai-responses"),
        ReasoningDelta(0, "", encrypted="enc", provider="openai-responses", id="rs_1"),
        TextDelta(0, "a"),
        STOP,
        USAGE,
        End(),
    )

    signature = next(event["delta"]["signature"] for event in events if "signature" in event.get("delta", {}))
    assert unseal(signature) == Carried("openai-responses", encrypted="enc", id="rs_1")
    assert blocks(events) == [("thinking", "hm so"), ("text", "a")]


def test_the_signature_of_a_call_goes_before_it() -> None:
    call = ToolCallStart(0, 0, "a", "one", signature="g")
    events = checked(START, call, ToolCallDelta(0, 0, "{}"), CALLED, USAGE, End())

    assert blocks(events) == [("redacted_thinking", ""), ("tool_use", "{}")]
    assert events[1]["content_block"]["data"] == seal(Carried("gemini", signature="g", id="a", of_call=True))


def test_our_own_thinking_keeps_its_signature() -> None:
    events = checked(
        START,
        ReasoningDelta(0, "", redacted="r", provider="anthropic"),
        ReasoningDelta(0, "hm", provider="anthropic"),
        ReasoningDelta(0, "", signature="s", provider="anthropic"),
        ReasoningDelta(0, "", signature="only", provider="anthropic"),
        STOP,
        USAGE,
        End(),
    )

    assert blocks(events) == [("redacted_thinking", ""), ("thinking", "hm"), ("thinking", "")]


# -- any order at all ------------------------------------------------------------------------------------------

ANY_EVENT: st.SearchStrategy[ChatEvent] = st.one_of(
    st.builds(TextDelta, st.just(0), st.sampled_from(["", "a", "\u20ac"])),
    st.builds(RefusalDelta, st.just(0), st.just("no")),
    st.builds(
        ReasoningDelta,
        st.just(0),
        st.sampled_from(["", "hm"]),
        st.none() | st.just("s"),
        st.none(),
        st.none() | st.just("e"),
        st.sampled_from(["gemini", None]),
    ),
    st.builds(CitationAdded, st.just(0), st.just(Citation("url_citation", url="u"))),
    st.just(Ping()),
    st.just(USAGE),
)


@given(st.lists(ANY_EVENT, max_size=12), st.lists(st.integers(0, 2), max_size=8), st.randoms())
def test_whatever_the_order_the_grammar_holds(said: list[ChatEvent], pieces: list[int], random: Any) -> None:
    calls = sorted(set(pieces))
    begun: list[ChatEvent] = [ToolCallStart(0, index, f"id{index}", f"name{index}") for index in range(len(calls))]
    deltas: list[ChatEvent] = []
    for index in range(len(calls)):
        deltas += [ToolCallDelta(0, index, piece) for piece in ('{"a"', ":", "1}")]
    random.shuffle(said)
    order = sorted(range(len(deltas)), key=lambda place: (place % 3, random.random()))  # interleaved, each in its order

    checked(START, *said, *begun, *(deltas[place] for place in order), CALLED, USAGE, End())


# -- our own frames, changed -----------------------------------------------------------------------------------


def frame(kind: str, **members: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}   \n\n".encode()


def own(*content: tuple[dict[str, Any], list[dict[str, Any]]], stop: str = "end_turn") -> bytes:
    """A stream of ours whose blocks are *content*: each its start, and its deltas."""
    usage = {"input_tokens": 5, "output_tokens": 1}
    message: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": []}
    message |= {"stop_reason": None, "stop_sequence": None, "usage": usage}
    out = [frame("message_start", message=message)]
    for index, (block, deltas) in enumerate(content):
        out.append(frame("content_block_start", index=index, content_block=block))
        out += [frame("content_block_delta", index=index, delta=delta, x_new=1.0) for delta in deltas]
        out.append(frame("content_block_stop", index=index))
    out.append(frame("message_delta", delta={"stop_reason": stop, "stop_sequence": None}, usage={"output_tokens": 9}))
    return b"".join([*out, frame("message_stop")])


TEXT: dict[str, Any] = {"type": "text", "text": ""}


def texts(*pieces: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return TEXT, [{"type": "text_delta", "text": piece} for piece in pieces]


def call(name: str, *pieces: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    block = {"type": "tool_use", "id": f"toolu_{name}", "name": name, "input": {}}
    return block, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]


def filtered(stream: bytes, word: str, by: str) -> bytes:
    """*stream* after a filter of the core's own, that holds back what may become *word*."""
    stage = Filtering(lambda channel: Replace({word: by}))
    reader, writer = DIALECT.reader(MESSAGES), DIALECT.writer(MESSAGES, usage=True)
    frames = reader.feed(stream) + reader.end()
    return b"".join(writer.write(apply_to_events(stage, it.events), it) for it in frames)


def reply(stream: bytes) -> Any:
    reader, assembler = DIALECT.reader(MESSAGES), Assembler()
    for it in reader.feed(stream) + reader.end():
        assembler.feed(it.events)
    return assembler.reply()


def test_a_changed_text_changes_its_string_alone() -> None:
    stream = own(texts("a canary", " sings"))

    assert filtered(stream, "canary", "c-----") == stream.replace(b"canary", b"c-----")


def test_what_a_filter_holds_to_the_end_stays_in_its_block() -> None:
    stream = filtered(own(texts("it is a can")), "canary", "c-----")

    assert check_stream("anthropic", stream, strict=False) == []
    assert blocks(parsed(stream)) == [("text", "it is a can")]


def test_what_a_filter_holds_over_a_call_stays_before_it() -> None:
    stream = filtered(own(texts("it is a can"), call("look", '{"a":1}'), stop="tool_use"), "canary", "c-----")

    assert check_stream("anthropic", stream, strict=False) == []
    assert reply(stream).text == "it is a can"
    assert blocks(parsed(stream)) == [("text", "it is a can"), ("tool_use", '{"a":1}')]


class Holding:
    """Holds all of a text to its end."""

    def __init__(self) -> None:
        self._held: list[str] = []

    def feed(self, text: str) -> str:
        self._held.append(text)
        return ""

    def flush(self) -> str:
        return "".join(self._held).upper()


class Dropping:
    """Lets nothing pass."""

    def feed(self, text: str) -> str:
        return ""

    def flush(self) -> str:
        return ""


class Lagging(Holding):
    """Holds the last three characters."""

    def feed(self, text: str) -> str:
        held = "".join([*self._held, text])
        self._held = [held[-3:]]
        return held[:-3].upper()


def thought(text: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    deltas = [{"type": "thinking_delta", "thinking": text}, {"type": "signature_delta", "signature": "s"}]
    return {"type": "thinking", "thinking": "", "signature": ""}, deltas


@pytest.mark.parametrize("kinds", [("text",), ("text", "arguments"), ("text", "arguments", "reasoning")])
@pytest.mark.parametrize(
    ("make", "content", "said"),
    [
        (Holding, [texts("Hel", "lo")], ["HELLO"]),
        (Holding, [texts("Hel", "lo"), call("look", '{"a":', "1}")], ["HELLO", "tool"]),
        (Holding, [thought("hm"), texts("Hi"), call("one"), call("two", "{}")], ["think", "HI", "tool", "tool"]),
        (Holding, [texts("Hello"), call("look", "{}"), texts(" you")], ["tool", "HELLO YOU"]),
        (Holding, [texts("Hello"), thought("hm"), texts(" you"), call("look", "{}")], ["think", "HELLO YOU", "tool"]),
        (Holding, [texts("Hello"), texts(" you")], ["HELLO YOU"]),
        (Holding, [texts(), call("look", "{}")], ["", "tool"]),
        (Lagging, [texts("Hello"), call("look", "{}")], ["HELLO", "tool"]),
        (Lagging, [texts("Hello"), call("look", "{}"), texts(" you")], ["HE", "tool", "LLO YOU"]),
        (Dropping, [texts("Hello"), call("look", "{}")], ["tool"]),
        (Dropping, [texts("Hello")], []),
    ],
)
def test_a_text_that_a_filter_holds_stays_in_its_place(
    kinds: tuple[str, ...], make: type[Any], content: list[Any], said: list[str]
) -> None:
    stage = Filtering(lambda channel: make() if channel.kind in kinds else None)
    reader, writer = DIALECT.reader(MESSAGES), DIALECT.writer(MESSAGES, usage=True)
    frames = reader.feed(own(*content, stop="tool_use" if "tool" in said else "end_turn")) + reader.end()

    stream = b"".join(writer.write(apply_to_events(stage, it.events), it) for it in frames)

    wrong = check_stream("anthropic", stream, strict=False)
    assert [it for it in wrong if "says nothing" not in it or "" not in said] == []
    shown = {"tool_use": "tool", "thinking": "think"}
    assert [shown.get(kind, text) for kind, text in blocks(parsed(stream))] == said


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_text_that_begins_late_passes_as_it_came(size: int) -> None:
    ping = b'event: ping\ndata: {"type": "ping"}\n\n'
    start = frame("content_block_start", index=0, content_block=TEXT)
    stream = own(texts("", "Hello"), texts(), call("look", "{}"), stop="tool_use").replace(start, start + ping, 1)
    reader, writer = DIALECT.reader(MESSAGES), DIALECT.writer(MESSAGES, usage=True)
    out = b""
    for at in range(0, len(stream), size):
        out += b"".join(writer.write(it.events, it) for it in reader.feed(stream[at : at + size]))

    assert out == stream


PING = b'event: ping\ndata: {"type": "ping"}\n\n'
BEGIN, *_, DELTA, STOPPED = [it + b"\n\n" for it in own(texts("Hello")).split(b"\n\n") if it]


def begun(index: int) -> bytes:
    return frame("content_block_start", index=index, content_block=TEXT)


def says(index: int, text: str) -> bytes:
    return frame("content_block_delta", index=index, delta={"type": "text_delta", "text": text})


def stopped(index: int) -> bytes:
    return frame("content_block_stop", index=index)


def looked(writer: Any, stream: bytes) -> bytes:
    """*stream* after a processor that changes nothing, as the core gives it: in lists of its own."""
    reader = DIALECT.reader(MESSAGES)
    return b"".join(writer.write([*it.events], it) for it in reader.feed(stream) + reader.end())


@pytest.mark.parametrize(
    "frames",
    [
        [begun(0), PING, DELTA, STOPPED],
        [begun(0), PING, STOPPED],
        [begun(0), says(0, "a"), DELTA, STOPPED],
        [begun(0), begun(1), says(1, "B"), says(0, "A"), stopped(0), stopped(1), DELTA, STOPPED],
        [begun(0), says(0, "A"), begun(1), PING, says(0, "a"), says(1, "B"), stopped(1), stopped(0), DELTA, STOPPED],
        [begun(0), says(0, "A"), begun(1), stopped(0), stopped(1), DELTA, STOPPED],
        [begun(1), says(1, "A"), stopped(1), begun(5), says(5, "B"), stopped(5), DELTA, STOPPED],
        [begun(0), stopped(7), says(0, "A"), stopped(0), stopped(0), DELTA, STOPPED],
    ],
)
def test_whatever_the_order_what_nobody_changes_passes_as_it_came(frames: list[bytes]) -> None:
    stream = b"".join([BEGIN, *frames])

    assert looked(DIALECT.writer(MESSAGES, usage=True), stream) == stream


def test_another_name_of_the_model_changes_nothing_of_the_blocks() -> None:
    stream = b"".join([BEGIN, begun(0), begun(1), says(1, "B"), says(0, "A"), stopped(0), stopped(1), DELTA, STOPPED])
    reader, writer = DIALECT.reader(MESSAGES), DIALECT.writer(MESSAGES, usage=True)

    out = b""
    for it in reader.feed(stream):
        events = [Start(event.id, "mine") if isinstance(event, Start) else event for event in it.events]
        out += writer.write(events, it)

    assert out == stream.replace(b'"claude"', b'"mine"')


def test_a_text_without_words_goes_out_with_the_error_that_is_read() -> None:
    before = BEGIN + begun(0) + PING
    error = frame("error", error={"type": "overloaded_error", "message": "O"})
    writer = MessageWriter()

    assert looked(writer, before + error) == before
    assert writer.unsaid == b""


def test_a_text_without_words_is_still_to_be_said_before_an_error() -> None:
    writer = MessageWriter()

    assert looked(writer, BEGIN + begun(0) + PING) == BEGIN
    assert writer.unsaid == begun(0) + PING
    error = UpstreamCut("It was cut")
    told = DIALECT.error_event(error, "r", MESSAGES, writer)
    assert told == begun(0) + PING + DIALECT.error_event(error, "r", MESSAGES)


def test_a_text_without_words_is_still_to_be_said_at_its_new_place() -> None:
    reader, writer = DIALECT.reader(MESSAGES), MessageWriter()
    for it in reader.feed(BEGIN + begun(3) + says(3, "a") + stopped(3) + begun(7)):
        writer.write([TextDelta(0, "b") if isinstance(event, TextDelta) else event for event in it.events], it)

    assert parsed(writer.unsaid)[0]["index"] == 1


def test_a_text_that_a_filter_has_is_not_said_before_an_error() -> None:
    reader, writer = DIALECT.reader(MESSAGES), MessageWriter()
    stage = Filtering(lambda _: Holding())
    for it in reader.feed(BEGIN + begun(0) + PING + says(0, "secret")):
        writer.write(apply_to_events(stage, it.events), it)

    assert writer.unsaid == b""


def test_a_text_that_a_filter_holds_keeps_its_block_without_an_end() -> None:
    reader, writer = DIALECT.reader(MESSAGES), DIALECT.writer(MESSAGES, usage=True)
    stage = Filtering(lambda _: Holding())

    frames = reader.feed(BEGIN + begun(0) + says(0, "Hello") + DELTA + STOPPED)
    stream = b"".join(writer.write(apply_to_events(stage, it.events), it) for it in frames)

    assert check_stream("anthropic", stream, strict=False) == []
    assert blocks(parsed(stream)) == [("text", "HELLO")]


def test_a_whole_answer_has_no_block_that_a_filter_emptied() -> None:
    content = [{"type": "text", "text": "a"}, {"type": "tool_use", "id": "t", "name": "n", "input": {}}]
    content.append({"type": "text", "text": "b"})
    message: dict[str, Any] = {"id": "m", "type": "message", "role": "assistant", "model": "c", "content": content}
    message |= {"stop_reason": "tool_use", "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}}
    whole = DIALECT.read_reply(MESSAGES, json.dumps(message).encode())

    out = json.loads(DIALECT.write_reply(MESSAGES, apply_to_reply(Filtering(lambda _: Holding()), whole)))

    assert [block.get("text", "tool") for block in out["content"]] == ["tool", "AB"]


def test_a_word_that_is_split_over_a_call_is_found() -> None:
    stream = filtered(own(texts("it is a can"), call("look", "{}"), texts("ary."), stop="tool_use"), "canary", "c-----")

    assert b"canary" not in stream
    assert reply(stream).text == "it is a c-----."
    assert check_stream("anthropic", stream, strict=False) == []


def test_a_word_in_arguments_is_changed() -> None:
    stream = own(call("look", '{"a":"can', 'ary"}'), call("see", '{"b":"canary"}'), stop="tool_use")

    changed = filtered(stream, "canary", "c-----")

    assert blocks(parsed(changed)) == [("tool_use", '{"a":"c-----"}'), ("tool_use", '{"b":"c-----"}')]
    assert check_stream("anthropic", changed, strict=False) == []


def test_arguments_that_are_held_to_the_end_are_not_lost() -> None:
    """A model that was cut off in its call: what the filter holds belongs to a block that others come after."""
    changed = filtered(own(call("look", '{"a":"can'), texts("said"), stop="max_tokens"), "canary", "c-----")

    assert blocks(parsed(changed)) == [("tool_use", '{"a":"can'), ("text", "said")]
    assert check_stream("anthropic", changed, strict=False) == []


def test_a_call_that_a_processor_leaves_out_leaves_no_gap() -> None:
    reader, writer = DIALECT.reader(MESSAGES), DIALECT.writer(MESSAGES, usage=True)
    out = b""
    for it in reader.feed(own(call("look", "{}"), texts("said"))):
        left = [event for event in it.events if not isinstance(event, ToolCallStart | ToolCallDelta)]
        out += writer.write(left, it)

    assert blocks(parsed(out)) == [("text", "said")]
    assert check_stream("anthropic", out, strict=False) == []


def test_a_model_s_other_name_is_written_where_it_stands() -> None:
    reader, writer = DIALECT.reader(MESSAGES), DIALECT.writer(MESSAGES, usage=True)
    stream = own(texts("a"))

    out = b""
    for it in reader.feed(stream):
        events = [Start(event.id, "mine") if isinstance(event, Start) else event for event in it.events]
        out += writer.write(events, it)

    assert out == stream.replace(b'"claude"', b'"mine"')


# -- reading ---------------------------------------------------------------------------------------------------


def test_an_answer_given_as_a_tool_is_read_as_text() -> None:
    told = reply(own(call("llmproxy_structured_answer", '{"a"', ":1}"), stop="tool_use"))

    assert told.text == '{"a":1}'
    assert told.choices[0].finish.reason is FinishReason.STOP


def test_a_tool_that_takes_a_text_is_called_with_it() -> None:
    told = reply(own(call("llmproxy_text_patch", '{"text": "*** ', 'Begin"}'), stop="tool_use"))

    (part,) = told.choices[0].content
    assert (part.name, part.kind, part.arguments) == ("patch", "custom", "*** Begin")


def test_a_delta_of_a_block_that_never_began_is_garbage() -> None:
    reader = DIALECT.reader(MESSAGES)

    with pytest.raises(UpstreamGarbage):
        reader.feed(frame("content_block_delta", index=3, delta={"type": "text_delta", "text": "a"}))


def test_a_refusal_may_have_no_block_at_all() -> None:
    delta = {"stop_reason": "refusal", "stop_sequence": None, "stop_details": {"type": "refusal", "category": "cyber"}}
    stream = frame("message_start", message={"id": "m", "model": "c", "usage": {"input_tokens": 3}})
    stream += frame("message_delta", delta=delta, usage={"output_tokens": 0}) + frame("message_stop")

    told = reply(stream)

    assert told.choices[0].content == ()
    assert told.choices[0].finish == Finish(FinishReason.REFUSAL, "refusal", detail="cyber")


def test_nothing_is_read_after_an_error() -> None:
    error = {"type": "rate_limit_error", "message": "Slow down"}
    stream = frame("error", error=error) + frame("message_stop")
    reader, scanner = DIALECT.reader(MESSAGES), DIALECT.scanner(MESSAGES, usage=True)

    (failed,) = [event for it in reader.feed(stream) for event in it.events]

    assert isinstance(failed, Failed)
    assert (failed.status, failed.error_type, failed.dialect) == (429, "rate_limit_error", "anthropic")
    assert scanner.feed(stream) == b""
    assert scanner.error is not None
    assert not scanner.done


def test_a_stream_that_ends_early_is_not_done() -> None:
    stream = own(texts("a"))
    scanner = DIALECT.scanner(MESSAGES, usage=True)

    scanner.feed(stream[: stream.index(b"event: message_stop")])
    scanner.end()

    assert not scanner.done


def test_the_output_that_a_message_begins_with_is_not_all_of_it() -> None:
    """A stream that breaks off before its end has told nothing of its output, which is then estimated."""
    scanner = DIALECT.scanner(MESSAGES, usage=True)
    stream = own(texts("some words that were said"))
    scanner.feed(stream[: stream.index(b"event: message_delta")])

    assert scanner.usage is not None
    assert (scanner.usage.input_tokens, scanner.usage.output_tokens) == (5, 0)
    assert scanner.output_tokens() > 0


def test_of_an_endless_number_of_finish_words_the_last_are_kept() -> None:
    scanner = DIALECT.scanner(MESSAGES, usage=True)
    for word in ["end_turn"] * 500 + ["max_tokens"]:
        scanner.feed(frame("message_delta", delta={"stop_reason": word}, usage={"output_tokens": 1}))

    assert scanner.finish == (*["end_turn"] * (MOST_FINISH_WORDS - 1), "max_tokens")
