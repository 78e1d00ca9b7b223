"""Streams of the Responses API: copied, read, changed on their way, and made of the events of others."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import pytest

from llmproxy_core.carried import Carried, unseal
from llmproxy_core.chat import (
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
from llmproxy_core.reply_events import Assembler
from llmproxy_core.stages import Filtering, apply_to_events
from llmproxy_core.testing.grammar import check_stream
from llmproxy_core.usage import Usage
from llmproxy_openai import OpenAIDialect
from llmproxy_openai.paths import CHAT
from llmproxy_openai.responses import ResponsesDialect
from llmproxy_openai.responses.paths import CREATE
from tests.recordings import Recording, recording, recordings

DIALECT, OPENAI = ResponsesDialect(), OpenAIDialect()
STREAMS = [
    each
    for each in recordings()
    if each.is_event_stream and each.response_status == 200 and each.request_path.endswith("/responses")
]
WHOLE = [each for each in STREAMS if "error-event" not in each.name]
CHATS = [
    each
    for each in recordings()
    if each.is_event_stream and each.response_status == 200 and each.request_path.endswith("/chat/completions")
]
USAGE = UsageReported(Usage(5, 3))


def pieces(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


def events_in(chunks: Iterable[bytes]) -> list[ChatEvent]:
    reader = DIALECT.reader(CREATE)
    frames = [frame for chunk in chunks for frame in reader.feed(chunk)] + list(reader.end())
    return [event for frame in frames for event in frame.events]


def data_in(stream: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in stream.splitlines() if line.startswith(b"data: ")]


def rendered(*events: ChatEvent) -> bytes:
    writer = DIALECT.writer(CREATE, usage=True)
    return b"".join(writer.write([event], None) for event in events)


def checked(*events: ChatEvent) -> list[dict[str, Any]]:
    """The events of a whole stream of *events*, which its grammar accepts."""
    stream = rendered(Start("r", "m"), *events, Finished(0, Finish(FinishReason.STOP)), USAGE, End())
    assert check_stream("openai-responses", stream) == []
    return data_in(stream)


def kinds(told: Sequence[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in told]


# -- copied and read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 30])
@pytest.mark.parametrize("stream", STREAMS, ids=str)
def test_a_stream_is_copied_and_read_alike_at_any_split(stream: Recording, size: int) -> None:
    body = stream.response_body
    whole, cut = DIALECT.scanner(CREATE, usage=False), DIALECT.scanner(CREATE, usage=False)
    once = whole.feed(body) + whole.end()
    out = b"".join(cut.feed(piece) for piece in pieces(body, size)) + cut.end()
    assert body.startswith(out)
    assert out == once
    assert (cut.usage, cut.id, cut.model, cut.done, cut.finish) == (
        whole.usage,
        whole.id,
        whole.model,
        whole.done,
        whole.finish,
    )
    assert events_in(pieces(body, size)) == events_in([body])


@pytest.mark.parametrize("stream", WHOLE, ids=str)
def test_a_scanner_tells_what_a_reader_reads_and_decodes_two_events(stream: Recording) -> None:
    scanner = DIALECT.scanner(CREATE, usage=False)
    scanner.feed(stream.response_body)
    events = events_in([stream.response_body])
    start = next(event for event in events if isinstance(event, Start))
    finish = next(event for event in events if isinstance(event, Finished))
    usage = next(event for event in events if isinstance(event, UsageReported))
    assert (scanner.id, scanner.model) == (start.id, start.model)
    assert scanner.finish == (finish.finish.word,)
    assert scanner.usage == usage.usage
    assert scanner.done
    assert scanner.decoded == 2


@pytest.mark.parametrize("stream", WHOLE, ids=str)
def test_what_a_broken_stream_has_said_is_estimated_from_its_pieces(stream: Recording) -> None:
    scanner = DIALECT.scanner(CREATE, usage=False)
    scanner.feed(stream.response_body)
    assert scanner.usage is not None
    said = scanner.usage.output_tokens - scanner.usage.reasoning_tokens
    shown = sum(1 for event in events_in([stream.response_body]) if isinstance(event, ReasoningDelta) and event.text)
    assert scanner.output_tokens() <= 2 * (said + shown) + 20


@pytest.mark.parametrize("stream", WHOLE, ids=str)
def test_untouched_frames_give_their_bytes_back(stream: Recording) -> None:
    reader, writer = DIALECT.reader(CREATE), DIALECT.writer(CREATE, usage=False)
    scanner = DIALECT.scanner(CREATE, usage=False)
    out = b"".join(writer.write(frame.events, frame) for frame in reader.feed(stream.response_body))
    assert out == scanner.feed(stream.response_body)


def test_a_plain_answer_and_a_stream_of_it_say_the_same() -> None:
    for stream in WHOLE:
        assembler = Assembler()
        assembler.feed(events_in([stream.response_body]))
        ends = {"response.completed", "response.incomplete"}
        last = next(event for event in data_in(stream.response_body) if event["type"] in ends)
        reply = DIALECT.read_reply(CREATE, json.dumps(last["response"]).encode())
        streamed = assembler.reply()
        assert [type(part) for part in streamed.choices[0].content] == [type(part) for part in reply.choices[0].content]
        assert streamed.text == reply.text
        assert streamed.choices[0].finish == reply.choices[0].finish
        assert (streamed.id, streamed.model, streamed.usage) == (reply.id, reply.model, reply.usage)


def test_a_server_that_tells_the_end_alone_has_said_all_of_it() -> None:
    item = {"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]}
    response = {"id": "r", "model": "m", "status": "completed", "output": [item]}
    stream = b"data: " + json.dumps({"type": "response.completed", "response": response}).encode() + b"\n\n"
    assembler = Assembler()
    assembler.feed(events_in([stream]))
    assert assembler.reply().text == "Hi"
    assert isinstance(events_in([stream])[-1], End)


def test_pieces_that_are_told_only_when_they_are_whole_are_read() -> None:
    call = {"type": "function_call", "id": "fc", "call_id": "c", "name": "f", "arguments": '{"a":1}'}
    events = [
        {"type": "response.created", "response": {"id": "r", "model": "m"}},
        {"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "Hi"},
        {"type": "response.output_item.done", "output_index": 1, "item": call},
    ]
    stream = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    assert events_in([stream]) == [
        Start("r", "m"),
        TextDelta(0, "Hi"),
        ToolCallStart(0, 0, "c", "f", item_id="fc"),
        ToolCallDelta(0, 0, '{"a":1}'),
    ]


def test_keep_alives_pass_and_mean_nothing() -> None:
    reader, writer = DIALECT.reader(CREATE), DIALECT.writer(CREATE, usage=False)
    text = b': ping\n\nevent: keepalive\ndata: {"type":"keepalive","sequence_number":3}\n\n'
    frames = reader.feed(text)
    assert [event for frame in frames for event in frame.events] == [Ping(), Ping()]
    assert b"".join(writer.write(frame.events, frame) for frame in frames) == text


# -- changed on their way ----------------------------------------------------------------------------------------


class _Late:
    """Shouts each vowel, and gives a text three letters late."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        self._held += text
        out, self._held = self._held[:-3], self._held[-3:]
        return out.replace("e", "E")

    def flush(self) -> str:
        return self._held.replace("e", "E")


class _AtOnce:
    def feed(self, text: str) -> str:
        return text.replace("e", "E")

    def flush(self) -> str:
        return ""


def _texts(events: Iterable[ChatEvent]) -> dict[object, str]:
    texts: dict[object, str] = {}
    for event in events:
        match event:
            case TextDelta(choice=0, text=text):
                texts["text"] = texts.get("text", "") + text
            case ReasoningDelta(choice=0, text=text) if text:
                texts["thinking"] = texts.get("thinking", "") + text
            case ToolCallDelta(choice=0, index=index, arguments=text):
                texts[index] = texts.get(index, "") + text
            case _:
                pass
    return texts


def _strings(told: object, *, of: frozenset[str]) -> Iterable[str]:
    if isinstance(told, dict):
        for name, value in told.items():
            if isinstance(value, str) and name in of:
                yield value
            yield from _strings(value, of=of)
    elif isinstance(told, list):
        for each in told:
            yield from _strings(each, of=of)


SAID = frozenset({"delta", "text", "arguments", "refusal"})


@pytest.mark.parametrize("make", [_Late, _AtOnce])
@pytest.mark.parametrize("stream", [*WHOLE, *CHATS], ids=str)
def test_a_filter_reaches_every_place_of_a_text(stream: Recording, make: type[_Late | _AtOnce]) -> None:
    own = stream in WHOLE
    dialect, api = (DIALECT, CREATE) if own else (OPENAI, CHAT)
    reader, writer, stage = dialect.reader(api), DIALECT.writer(CREATE, usage=True), Filtering(lambda _: make())
    frames = [*reader.feed(stream.response_body), *reader.end()]
    if any(isinstance(event, Failed) for frame in frames for event in frame.events):
        pytest.skip("it fails by itself")
    out, sent = [], []
    for frame in frames:
        events = apply_to_events(stage, frame.events)
        sent += events
        out.append(writer.write(events, frame if own else None))
    body = b"".join(out)
    told = data_in(body)
    has_usage = any(isinstance(event, UsageReported) for event in sent)
    assert check_stream("openai-responses", body, strict=has_usage and not own) == []
    assert _texts(events_in([body])) == _texts(sent)
    for event in told:
        shown = {key: value for key, value in event.items() if key != "response"} | {
            "response": {"output": event.get("response", {}).get("output")}
        }
        assert not [text for text in _strings(shown, of=SAID) if "e" in text]


def test_a_changed_text_keeps_the_providers_other_members() -> None:
    stream = recording("openai/responses-stream-openai-responses-phase-streamed-on-part-start-1")
    reader, writer = DIALECT.reader(CREATE), DIALECT.writer(CREATE, usage=False)
    out = b""
    for frame in reader.feed(stream.response_body):
        events = [attrs.evolve(e, text=e.text.upper()) if isinstance(e, TextDelta) else e for e in frame.events]
        out += writer.write(events, frame)
    was, now = data_in(stream.response_body), data_in(out)
    assert kinds(now) == kinds(was)
    text = "".join(event["delta"] for event in was if event["type"].endswith("text.delta"))
    assert json.loads(json.dumps(now).replace(json.dumps(text.upper())[1:-1], json.dumps(text)[1:-1]))[-4:] == was[-4:]
    assert [event.get("obfuscation") for event in now] == [event.get("obfuscation") for event in was]


def test_a_model_that_is_renamed_is_renamed_wherever_it_stands() -> None:
    stream = recording("openai/responses-stream-openai-responses-streaming-usage-0")
    reader, writer = DIALECT.reader(CREATE), DIALECT.writer(CREATE, usage=False)
    frames = reader.feed(stream.response_body)
    start = next(event for frame in frames for event in frame.events if isinstance(event, Start))
    out = b"".join(
        writer.write([attrs.evolve(e, model="mine") if isinstance(e, Start) else e for e in frame.events], frame)
        for frame in frames
    )
    assert out == stream.response_body.replace(start.model.encode(), b"mine")


# -- made of the events of others ----------------------------------------------------------------------------------


def test_a_text_is_told_in_order() -> None:
    told = checked(TextDelta(0, "Hel"), TextDelta(0, "lo"))
    assert kinds(told) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["sequence_number"] for event in told] == list(range(10))
    assert told[-1]["response"]["output"] == [told[-2]["item"]]
    assert told[-1]["response"]["usage"]["total_tokens"] == 8


def test_thinking_a_refusal_and_citations_have_events_of_their_own() -> None:
    told = checked(
        ReasoningDelta(0, "H"),
        ReasoningDelta(0, "m"),
        ReasoningDelta(0, "", signature="S", provider="anthropic"),
        TextDelta(0, "See"),
        CitationAdded(0, Citation("x", url="https://a")),
        RefusalDelta(0, "No"),
    )
    assert kinds(told)[2:] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.annotation.added",
        "output_text.done",
        "content_part.done",
        "content_part.added",
        "refusal.delta",
        "refusal.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]


def test_thinking_of_openai_is_told_as_it_was() -> None:
    told = checked(
        ReasoningDelta(0, "raw", provider="openai-responses", id="rs_1"),
        ReasoningDelta(0, "", encrypted="E", provider="openai-responses", id="rs_1"),
        ReasoningDelta(0, "", encrypted="F", provider="openai-responses", id="rs_2", summary=True),
    )
    assert told[-1]["response"]["output"] == [
        {
            "id": "rs_1",
            "type": "reasoning",
            "summary": [],
            "encrypted_content": "E",
            "content": [{"type": "reasoning_text", "text": "raw"}],
        },
        {"id": "rs_2", "type": "reasoning", "summary": [], "encrypted_content": "F"},
    ]


def test_calls_whose_pieces_come_mixed_are_told_one_after_the_other() -> None:
    told = checked(
        ToolCallStart(0, 0, "a", "f"),
        ToolCallStart(0, 1, "b", "g"),
        ToolCallDelta(0, 1, '{"b"'),
        ToolCallDelta(0, 0, '{"a":'),
        ToolCallDelta(0, 1, ":2}"),
        TextDelta(0, "then"),
        ToolCallDelta(0, 0, "1}"),
    )
    first, second, text = told[-1]["response"]["output"]
    assert (first["call_id"], first["arguments"]) == ("a", '{"a":1}')
    assert (second["call_id"], second["arguments"]) == ("b", '{"b":2}')
    assert text["content"][0]["text"] == "then"


def test_a_call_that_is_whole_does_not_hold_up_the_next() -> None:
    writer = DIALECT.writer(CREATE, usage=True)
    writer.write([Start("r", "m"), ToolCallStart(0, 0, "a", "f"), ToolCallDelta(0, 0, '{"a":1}')], None)
    out = data_in(writer.write([ToolCallStart(0, 1, "b", "g"), ToolCallDelta(0, 1, '{"b"')], None))
    assert kinds(out)[-2:] == ["output_item.added", "function_call_arguments.delta"]


def test_a_call_without_arguments_has_an_empty_object_of_them() -> None:
    told = checked(ToolCallStart(0, 0, "a", "f"), ToolCallDelta(0, 0, ""))
    assert told[-1]["response"]["output"][0]["arguments"] == "{}"


def test_a_custom_tool_is_called_in_its_own_events() -> None:
    told = checked(ToolCallStart(0, 0, "a", "f", "custom"), ToolCallDelta(0, 0, "ls"))
    assert kinds(told)[3:5] == ["custom_tool_call_input.delta", "custom_tool_call_input.done"]


@pytest.mark.parametrize("reason", [FinishReason.LENGTH, FinishReason.CONTENT_FILTER, FinishReason.ERROR])
def test_the_item_that_a_stream_ended_in_is_incomplete(reason: FinishReason) -> None:
    events = (Start("r", "m"), ToolCallStart(0, 0, "a", "f"), ToolCallDelta(0, 0, "{}"), TextDelta(0, "cut"))
    stream = rendered(*events, Finished(0, Finish(reason)), USAGE, End())
    assert check_stream("openai-responses", stream, failed=reason is FinishReason.ERROR) == []
    told = data_in(stream)
    done = [event["item"]["status"] for event in told if event["type"] == "response.output_item.done"]
    assert done == [item["status"] for item in told[-1]["response"]["output"]] == ["completed", "incomplete"]


@pytest.mark.parametrize("stream", [it for it in WHOLE if b"response.incomplete" in it.response_body], ids=str)
def test_a_recorded_stream_that_was_cut_ends_alike_when_it_is_told_anew(stream: Recording) -> None:
    was = data_in(stream.response_body)[-1]
    now = data_in(rendered(*events_in([stream.response_body])))[-1]
    assert now["type"] == was["type"] == "response.incomplete"
    assert now["response"]["incomplete_details"] == was["response"]["incomplete_details"]
    statuses = [[(it["type"], it.get("status")) for it in each["response"]["output"]] for each in (now, was)]
    assert statuses[0] == statuses[1]


def test_the_signature_of_a_call_goes_before_it() -> None:
    told = checked(ToolCallStart(0, 0, "a", "f", signature="TS"), ToolCallDelta(0, 0, "{}"))
    thought, call = told[-1]["response"]["output"]
    assert unseal(thought["encrypted_content"]) == Carried("gemini", signature="TS", id="a", of_call=True)
    assert call["type"] == "function_call"


def test_only_the_first_choice_and_nothing_of_another_providers_tools_is_told() -> None:
    told = checked(
        TextDelta(1, "no"), OpaqueEvent("server_tool_use", b"{}", 0, "strange.talk"), TextDelta(0, "yes"), Ping()
    )
    assert [item["content"][0]["text"] for item in told[-1]["response"]["output"]] == ["yes"]


@pytest.mark.parametrize(
    ("finish", "last"),
    [
        (FinishReason.LENGTH, "incomplete"),
        (FinishReason.CONTENT_FILTER, "incomplete"),
        (FinishReason.TOOL_CALLS, "completed"),
        (FinishReason.ERROR, "failed"),
    ],
)
def test_each_end_has_its_event_and_keeps_the_usage(finish: FinishReason, last: str) -> None:
    stream = rendered(Start("r", "m"), TextDelta(0, "a"), USAGE, Finished(0, Finish(finish)), End())
    assert check_stream("openai-responses", stream, failed=last == "failed") == []
    told = data_in(stream)
    assert kinds(told)[-1] == last
    assert told[-1]["response"]["usage"]["input_tokens"] == 5
    assert ("error" in kinds(told)) == (last == "failed")


def test_an_answer_that_says_nothing_is_one_nevertheless() -> None:
    told = checked()
    assert kinds(told) == ["created", "in_progress", "completed"]
    assert told[-1]["response"]["output"] == []
