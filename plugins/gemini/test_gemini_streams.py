"""Streams: as events and as one array, rewritten, translated, in pieces of calls, failed and cut."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmproxy_gemini import GeminiDialect
from llmproxy_gemini.apis import GENERATE, STREAM, STREAM_ARRAY
from llmproxy_gemini.array_split import ArraySplitter
from llmproxy_gemini.partial_args import PartialArgs, parse_path

from llmproxy_core import Api, Carried, Frame, UpstreamError, UpstreamGarbage, Usage, unseal
from llmproxy_core.chat import (
    ChatEvent,
    ChatReply,
    Choice,
    Citation,
    CitationAdded,
    End,
    Failed,
    Finish,
    Finished,
    FinishReason,
    ReasoningDelta,
    ReasoningPart,
    RefusalDelta,
    Start,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    UsageReported,
)
from llmproxy_core.reply_events import Assembler
from llmproxy_core.testing.grammar import check_stream
from llmproxy_openai import OpenAIDialect
from tests.recordings import recording

GEMINI, OPENAI = GeminiDialect(), OpenAIDialect()
CHAT = OPENAI.apis[0]
BOTH = (STREAM, STREAM_ARRAY)
each = pytest.mark.parametrize
HEAD = {"modelVersion": "gemini-2.5-flash", "responseId": "r"}
STOP = Finish(FinishReason.STOP, "stop")


def chunk(*parts: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [candidate | more], **HEAD}


def stream_of(api: Api, *chunks: dict[str, Any]) -> bytes:
    texts = [json.dumps(it, ensure_ascii=False).encode() for it in chunks]
    if api is STREAM:
        return b"".join(b"data: " + text + b"\r\n\r\n" for text in texts)
    return b"[" + b",\r\n".join(texts) + b"]\n"


def read(api: Api, stream: bytes) -> list[Frame]:
    reader = GEMINI.reader(api)
    return [*reader.feed(stream), *reader.end()]


def events(frames: Sequence[Frame]) -> list[ChatEvent]:
    return [event for frame in frames for event in frame.events]


def reply_of(found: Sequence[ChatEvent]) -> ChatReply:
    assembler = Assembler()
    assembler.feed(found)
    return assembler.reply()


def written(api: Api, *found: ChatEvent) -> bytes:
    writer = GEMINI.writer(api, usage=True)
    return b"".join(writer.write([event], None) for event in found)


def chunks_of(api: Api, stream: bytes) -> list[dict[str, Any]]:
    if api is STREAM_ARRAY:
        decoded: list[dict[str, Any]] = json.loads(stream)
        return decoded
    return [json.loads(event.removeprefix(b"data: ")) for event in stream.split(b"\r\n\r\n") if event]


def parts_of(api: Api, stream: bytes) -> list[dict[str, Any]]:
    return [
        part
        for it in chunks_of(api, stream)
        for candidate in it["candidates"]
        for part in candidate["content"]["parts"]
    ]


# -- its own streams, changed --------------------------------------------------------------------------------------


def rewritten(api: Api, stream: bytes, change: Callable[[ChatEvent], ChatEvent | None]) -> bytes:
    writer = GEMINI.writer(api, usage=True)
    out = []
    for frame in read(api, stream):
        changed = [now for event in frame.events if (now := change(event)) is not None]
        out.append(writer.write(changed, frame))
    return b"".join(out)


def shout(event: ChatEvent) -> ChatEvent:
    return attrs.evolve(event, text=event.text.upper()) if isinstance(event, TextDelta) else event


@each("api", BOTH)
def test_a_changed_text_leaves_all_other_bytes(api: Api) -> None:
    stream = stream_of(
        api,
        chunk({"text": "thought", "thought": True}, {"text": "hello", "x": 1.0}, y={"z": None}),
        chunk({"text": "", "thoughtSignature": "c2ln"}, finish="STOP"),
    )

    assert rewritten(api, stream, shout) == stream.replace(b'"hello"', b'"HELLO"')


@each("api", BOTH)
def test_the_name_of_the_model_can_be_changed_in_all_chunks(api: Api) -> None:
    stream = stream_of(api, chunk({"text": "a"}), chunk({"text": "b"}, finish="STOP"))

    def rename(event: ChatEvent) -> ChatEvent:
        return attrs.evolve(event, model="mine") if isinstance(event, Start) else event

    assert rewritten(api, stream, rename) == stream.replace(b"gemini-2.5-flash", b"mine")


@each("api", BOTH)
def test_arguments_of_a_call_can_be_changed(api: Api) -> None:
    call = {"functionCall": {"name": "f", "args": {"a": "secret"}, "id": "1"}, "thoughtSignature": "c2ln"}
    stream = stream_of(api, chunk(call, finish="STOP"))

    def hide(event: ChatEvent) -> ChatEvent:
        return attrs.evolve(event, arguments='{"a": "***"}') if isinstance(event, ToolCallDelta) else event

    assert rewritten(api, stream, hide) == stream.replace(b"secret", b"***")


@each("api", BOTH)
def test_passages_that_sources_repeat_do_not_tell_what_was_rewritten(api: Api) -> None:
    support = {"segment": {"endIndex": 6, "text": "secret"}, "groundingChunkIndices": [0]}
    grounding = {"groundingChunks": [{"web": {"uri": "u", "title": "t"}}], "groundingSupports": [support]}
    stream = stream_of(api, chunk({"text": "secret"}), chunk({"text": ""}, finish="STOP", groundingMetadata=grounding))

    out = rewritten(api, stream, shout)

    assert b"secret" not in out
    last = chunks_of(api, out)[-1]["candidates"][0]["groundingMetadata"]
    assert last["groundingChunks"] == grounding["groundingChunks"]
    assert rewritten(api, stream, lambda event: event) == stream


@each("api", BOTH)
def test_what_a_filter_held_back_goes_out_before_the_end(api: Api) -> None:
    stream = stream_of(api, chunk({"text": "held"}), chunk({"text": "", "thoughtSignature": "c2ln"}, finish="STOP"))
    writer = GEMINI.writer(api, usage=True)
    first, last, end = read(api, stream)
    emptied = [attrs.evolve(it, text="") if isinstance(it, TextDelta) else it for it in first.events]
    released = [
        it for event in last.events for it in ([TextDelta(0, "held")] if isinstance(event, Finished) else []) + [event]
    ]

    out = writer.write(emptied, first) + writer.write(released, last) + writer.write(end.events, end)

    assert reply_of(events(read(api, out))).text == "held"
    assert events(read(api, out))[-1] == End()


@each("api", BOTH)
def test_a_stream_ended_early_by_a_processor_is_complete(api: Api) -> None:
    stream = stream_of(api, chunk({"text": "one"}), chunk({"text": "two"}, finish="STOP"))
    writer = GEMINI.writer(api, usage=True)
    first = read(api, stream)[0]

    out = writer.write(first.events, first)
    out += writer.write([TextDelta(0, " - no more"), Finished(0, STOP), End()], None)

    again = events(read(api, out))
    assert again[-1] == End()
    assert reply_of(again).text == "one - no more"


# -- calls in pieces -----------------------------------------------------------------------------------------------


def test_a_call_in_pieces_is_one_call() -> None:
    case = recording("streamGenerate-stream-fixture-partial-function-args")

    reply = reply_of(events(read(STREAM, case.response_body)))

    calls = [part for part in reply.choices[0].content if isinstance(part, ToolCall)]
    assert [(it.name, json.loads(it.arguments)) for it in calls][:3] == [
        ("read_theme", {}),
        ("read_screen", {"id": "A"}),
        ("read_screen", {"id": "B"}),
    ]
    assert calls[0].signature is not None
    assert len({it.id for it in calls}) == len(calls)


def test_calls_of_answers_without_ids_have_ids_of_their_own() -> None:
    answer = chunk({"functionCall": {"name": "f", "args": {}}}, finish="STOP")
    del answer["responseId"]
    body = json.dumps(answer).encode()

    plain = [GEMINI.read_reply(GENERATE, body) for _ in range(2)]
    streamed = [reply_of(events(read(STREAM, stream_of(STREAM, answer)))) for _ in range(2)]

    calls = [part for reply in plain + streamed for part in reply.choices[0].content if isinstance(part, ToolCall)]
    assert len({call.id for call in calls}) == 4


@each("odd", [1, "x", None, ["x"]])
def test_what_is_no_part_amid_a_call_in_pieces_is_garbage(odd: Any) -> None:
    begun = chunk({"functionCall": {"name": "f", "willContinue": True}})

    with pytest.raises(UpstreamGarbage, match="not an object"):
        read(STREAM, stream_of(STREAM, begun, chunk(odd)))


def test_arguments_that_came_in_pieces_can_be_rewritten() -> None:
    stream = stream_of(
        STREAM,
        chunk({"functionCall": {"name": "f", "willContinue": True}}),
        chunk(
            {
                "functionCall": {
                    "partialArgs": [{"jsonPath": "$.a", "stringValue": "sec", "willContinue": True}],
                    "willContinue": True,
                }
            }
        ),
        chunk({"functionCall": {"partialArgs": [{"jsonPath": "$.a", "stringValue": "ret"}], "willContinue": True}}),
        chunk({"functionCall": {}}),
        chunk({"text": ""}, finish="STOP"),
    )

    def hide(event: ChatEvent) -> ChatEvent:
        return attrs.evolve(event, arguments='{"a":"***"}') if isinstance(event, ToolCallDelta) else event

    out = rewritten(STREAM, stream, hide)

    assert b"sec" not in out
    assert parts_of(STREAM, out)[0]["functionCall"] == {"name": "f", "args": {"a": "***"}}
    assert rewritten(STREAM, stream, lambda event: event) == stream


@each(
    ("pieces", "arguments"),
    [
        ([{"jsonPath": "$.a.b[0].c", "numberValue": 1.5}], {"a": {"b": [{"c": 1.5}]}}),
        ([{"jsonPath": "$['x y'].z", "boolValue": False}], {"x y": {"z": False}}),
        ([{"jsonPath": "$.n", "nullValue": None}], {"n": None}),
        (
            [{"jsonPath": "$.l[0]", "stringValue": "a"}, {"jsonPath": "$.l[1]", "stringValue": "b"}],
            {"l": ["a", "b"]},
        ),
        ([{"jsonPath": "$.s", "stringValue": "a"}, {"jsonPath": "$.s", "stringValue": "b"}], {"s": "ab"}),
        ([{"jsonPath": "$..*", "stringValue": "a"}, {"jsonPath": "$.k", "stringValue": "v"}], {"k": "v"}),
        ([{"jsonPath": "$.l[999999]", "stringValue": "a"}], {"l": []}),
    ],
)
def test_pieces_of_arguments_go_where_their_path_leads(pieces: list[dict[str, Any]], arguments: object) -> None:
    made = PartialArgs()
    for piece in pieces:
        made.add(piece)

    assert json.loads(made.text()) == arguments


def test_a_path_is_its_steps() -> None:
    assert parse_path(r"$.a[3]['b.c'][\"d\"]".replace("\\", "")) == ["a", 3, "b.c", "d"]
    assert parse_path("$.a[*]") == []


# -- for clients of Gemini -----------------------------------------------------------------------------------------

ASKED = (Start("id-1", "gpt-5"), UsageReported(Usage(10, 5, cached_input_tokens=4, reasoning_tokens=2)))


@each("api", BOTH)
def test_calls_go_out_whole_though_their_arguments_came_mixed(api: Api) -> None:
    stream = written(
        api,
        Start("id-1", "gpt-5"),
        TextDelta(0, "Let me see"),
        ToolCallStart(0, 0, "c1", "f"),
        ToolCallStart(0, 1, "c2", "g"),
        ToolCallDelta(0, 1, '{"b"'),
        ToolCallDelta(0, 0, '{"a":'),
        ToolCallDelta(0, 1, ":2}"),
        ToolCallDelta(0, 0, "1}"),
        Finished(0, Finish(FinishReason.TOOL_CALLS, "tool_calls")),
        UsageReported(Usage(10, 5, cached_input_tokens=4, reasoning_tokens=2)),
        End(),
    )

    assert not check_stream("gemini" if api is STREAM else "gemini-array", stream)
    last = chunks_of(api, stream)[-1]
    assert [part["functionCall"] for part in last["candidates"][0]["content"]["parts"]] == [
        {"name": "f", "args": {"a": 1}, "id": "c1"},
        {"name": "g", "args": {"b": 2}, "id": "c2"},
    ]
    assert last["candidates"][0]["finishReason"] == "STOP"
    assert last["usageMetadata"] == {
        "promptTokenCount": 10,
        "candidatesTokenCount": 3,
        "totalTokenCount": 15,
        "cachedContentTokenCount": 4,
        "thoughtsTokenCount": 2,
    }
    assert {(it["responseId"], it["modelVersion"]) for it in chunks_of(api, stream)} == {("id-1", "gpt-5")}


def test_text_between_the_pieces_of_a_call_does_not_break_it() -> None:
    stream = written(
        STREAM,
        *ASKED,
        ToolCallStart(0, 0, "c1", "f"),
        ToolCallDelta(0, 0, '{"a":'),
        TextDelta(0, "Hm"),
        ToolCallDelta(0, 0, "1}"),
        Finished(0, STOP),
        End(),
    )

    assert [part.get("functionCall", {}).get("args") for part in parts_of(STREAM, stream)] == [None, {"a": 1}]


def test_a_call_before_a_text_stays_before_it() -> None:
    stream = written(
        STREAM, *ASKED, ToolCallStart(0, 0, "c1", "f"), ToolCallDelta(0, 0, "{}"), TextDelta(0, "Hm"), End()
    )

    assert [list(part) for part in parts_of(STREAM, stream)][:2] == [["functionCall"], ["text"]]


@each("api", BOTH)
def test_an_answer_without_a_word_still_has_its_end(api: Api) -> None:
    stream = written(api, *ASKED, Finished(0, Finish(FinishReason.LENGTH, "length")), End())

    assert not check_stream("gemini" if api is STREAM else "gemini-array", stream)
    (only,) = chunks_of(api, stream)
    assert only["candidates"][0] == {
        "content": {"parts": [{"text": ""}], "role": "model"},
        "finishReason": "MAX_TOKENS",
        "index": 0,
    }


def test_thinking_of_another_provider_is_given_with_its_seal() -> None:
    stream = written(
        STREAM,
        *ASKED,
        ReasoningDelta(0, "Hm", provider="anthropic"),
        ReasoningDelta(0, "", signature="sig", provider="anthropic"),
        RefusalDelta(0, "No"),
        Finished(0, Finish(FinishReason.REFUSAL, "refusal", detail="cyber")),
        End(),
    )

    thought, signed, refusal, _ = parts_of(STREAM, stream)
    assert thought == {"text": "Hm", "thought": True}
    assert unseal(signed["thoughtSignature"]) == Carried("anthropic", signature="sig")
    assert refusal == {"text": "No"}
    candidate = chunks_of(STREAM, stream)[-1]["candidates"][0]
    assert (candidate["finishReason"], candidate["finishMessage"]) == ("SAFETY", "cyber")


def test_thinking_that_nobody_signed_still_names_its_provider_at_its_end() -> None:
    stream = written(
        STREAM,
        *ASKED,
        ReasoningDelta(0, "H", provider="mistral"),
        ReasoningDelta(0, "m", provider="mistral"),
        TextDelta(0, "Hi"),
        Finished(0, STOP),
        End(),
    )

    first, second, seal, text, _ = parts_of(STREAM, stream)
    assert [first["text"], second["text"], text["text"]] == ["H", "m", "Hi"]
    assert "thoughtSignature" not in first | second
    assert unseal(seal["thoughtSignature"]) == Carried("mistral")


def test_sources_are_told_in_the_last_chunk_in_bytes() -> None:
    stream = written(
        STREAM,
        *ASKED,
        TextDelta(0, "Grüße aus Köln"),
        CitationAdded(0, Citation("url_citation", url="https://k.example", title="K", start=10, end=14)),
        Finished(0, STOP),
        End(),
    )

    grounding = chunks_of(STREAM, stream)[-1]["candidates"][0]["groundingMetadata"]
    assert grounding == {
        "groundingChunks": [{"web": {"uri": "https://k.example", "title": "K"}}],
        "groundingSupports": [
            {"segment": {"startIndex": 12, "endIndex": 17, "text": "Köln"}, "groundingChunkIndices": [0]}
        ],
    }
    (citation,) = [event.citation for event in events(read(STREAM, stream)) if isinstance(event, CitationAdded)]
    assert (citation.start, citation.end, citation.url) == (10, 14, "https://k.example")


def test_choices_of_others_are_candidates() -> None:
    stream = written(
        STREAM,
        *ASKED,
        TextDelta(1, "b"),
        TextDelta(0, "a"),
        Finished(1, STOP),
        Finished(0, Finish(FinishReason.LENGTH, "length")),
        End(),
    )

    assert not check_stream("gemini", stream)
    choices = reply_of(events(read(STREAM, stream))).choices
    assert [(it.text, it.finish.word if it.finish else None) for it in choices] == [("a", "MAX_TOKENS"), ("b", "STOP")]


def test_a_time_that_no_calendar_has_is_left_out() -> None:
    start = Start("id-1", "gpt-5", created=1733467121000)  # as milliseconds

    stream = written(STREAM, start, TextDelta(0, "Hi"), Finished(0, STOP), End())
    reply = ChatReply("id-1", "gpt-5", (Choice(0, (), None),), None, created=10**20)
    plain = json.loads(GEMINI.write_reply(GENERATE, reply))

    assert all("createTime" not in it for it in [*chunks_of(STREAM, stream), plain])


def test_there_are_no_keep_alives() -> None:
    assert all(GEMINI.keepalive(api) == b"" for api in GEMINI.apis)


# -- for clients of others -----------------------------------------------------------------------------------------


def test_a_blocked_question_is_a_filtered_answer() -> None:
    body = {"promptFeedback": {"blockReason": "SAFETY", "blockReasonMessage": "no"}, "usageMetadata": {}, **HEAD}
    reply = GEMINI.read_reply(GENERATE, json.dumps(body).encode())
    streamed = events(read(STREAM, stream_of(STREAM, body)))

    for answer in (reply, reply_of(streamed)):
        (choice,) = json.loads(OPENAI.write_reply(CHAT, answer))["choices"]
        assert choice["finish_reason"] == "content_filter"
        assert not choice["message"]["content"]
    assert streamed[-1] == End()
    scanner = GEMINI.scanner(STREAM, usage=True)
    scanner.feed(stream_of(STREAM, body))
    scanner.end()
    assert scanner.done
    assert scanner.finish == ("SAFETY",)


def test_a_bound_met_while_thinking_is_an_empty_answer() -> None:
    body = {
        "candidates": [{"content": {"role": "model"}, "finishReason": "MAX_TOKENS", "index": 0}],
        "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 49, "thoughtsTokenCount": 40},
        **HEAD,
    }
    reply = GEMINI.read_reply(GENERATE, json.dumps(body).encode())
    streamed = reply_of(events(read(STREAM, stream_of(STREAM, body))))

    for answer in (reply, streamed):
        written = json.loads(OPENAI.write_reply(CHAT, answer))
        assert written["choices"][0]["finish_reason"] == "length"
        assert not written["choices"][0]["message"]["content"]
        assert written["usage"]["completion_tokens"] == 40
        assert written["usage"]["completion_tokens_details"]["reasoning_tokens"] == 40


def test_calls_are_the_finish_of_an_answer_that_calls() -> None:
    stream = stream_of(STREAM, chunk({"functionCall": {"name": "f"}}, finish="STOP"))
    frames = read(STREAM, stream)
    writer = OPENAI.writer(CHAT, usage=False)

    out = b"".join(writer.write(frame.events, None) for frame in frames)

    assert b'"finish_reason":"tool_calls"' in out
    assert rb'"arguments":"{}"' in out
    (call,) = [part for part in reply_of(events(frames)).choices[0].content if isinstance(part, ToolCall)]
    plain = GEMINI.read_reply(GENERATE, json.dumps(chunk({"functionCall": {"name": "f"}}, finish="STOP")).encode())
    assert plain.choices[0].content == (call,)


def test_the_usage_of_tools_and_thoughts_is_counted_once() -> None:
    case = recording("file-search-grounding-gemini-3-true-3")

    usage = reply_of(events(read(STREAM, case.response_body))).usage

    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.reasoning_tokens) == (427 + 771, 122 + 447, 447)
    assert usage.total_tokens == 1767


def test_thoughts_name_their_provider() -> None:
    frames = read(STREAM, stream_of(STREAM, chunk({"text": "Hm", "thought": True, "thoughtSignature": "c2ln"})))

    (thought,) = [event for event in events(frames) if isinstance(event, ReasoningDelta)]
    assert (thought.provider, thought.signature) == ("gemini", "c2ln")
    assert reply_of(events(frames)).choices[0].content == (
        ReasoningPart("Hm", summary=True, signature="c2ln", provider="gemini"),
    )


# -- failures ------------------------------------------------------------------------------------------------------


@each("api", BOTH)
def test_an_error_in_the_middle_ends_the_stream(api: Api) -> None:
    failure = {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}
    stream = stream_of(api, chunk({"text": "a"}), failure, chunk({"text": "b"}, finish="STOP"))

    found = events(read(api, stream))
    scanner = GEMINI.scanner(api, usage=True)
    passed = scanner.feed(stream) + scanner.end()

    assert isinstance(found[-1], Failed)
    assert (found[-1].status, found[-1].dialect) == (503, "gemini")
    assert scanner.error is not None
    assert not scanner.done
    assert b"overloaded" not in passed
    assert b'"text": "a"' in passed
    error = GEMINI.error_event(scanner.error, "r-1", api, scanner)
    assert not check_stream("gemini" if api is STREAM else "gemini-array", passed + error, failed=True)


@each("told", [True, False])
def test_a_failed_array_is_closed(told: bool) -> None:
    writer = GEMINI.writer(STREAM_ARRAY, usage=True)
    out = writer.write([Start("r", "m"), TextDelta(0, "a")], None) if told else b""
    error = UpstreamError("It broke", status=529, code="broken")

    body = json.loads(out + GEMINI.error_event(error, "r-1", STREAM_ARRAY, writer))

    assert len(body) == (2 if told else 1)
    assert (body[-1]["error"]["code"], body[-1]["error"]["status"]) == (503, "UNAVAILABLE")


@each("garbage", [b"{}", b'"x"', b"[1]", b"[[]]", b"[{}{}]x", b"[}", b"][", b"<html>"])
def test_what_is_no_array_of_objects_is_garbage(garbage: bytes) -> None:
    splitter = ArraySplitter()

    with pytest.raises(UpstreamGarbage, match="no array of objects"):
        splitter.feed(garbage)


def test_an_endless_element_is_garbage() -> None:
    splitter = ArraySplitter(max_bytes=100)

    with pytest.raises(UpstreamGarbage, match="too long"):
        splitter.feed(b'[{"a":"' + b"x" * 200)


_OBJECTS = st.lists(
    st.dictionaries(
        st.text(max_size=4),
        st.recursive(
            st.text(alphabet='"\\{}[],\né', max_size=6) | st.integers() | st.none(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
            max_leaves=6,
        ),
        max_size=3,
    ),
    max_size=5,
)


@given(objects=_OBJECTS, size=st.integers(1, 40), is_spaced=st.booleans())
def test_an_array_is_cut_into_its_elements_however_it_arrives(
    objects: list[dict[str, Any]], size: int, is_spaced: bool
) -> None:
    text = json.dumps(objects, indent=2 if is_spaced else None, ensure_ascii=False).encode() + b"\r\n"
    splitter = ArraySplitter()

    elements = [it for place in range(0, len(text), size) for it in splitter.feed(text[place : place + size])]

    assert [json.loads(it.data) for it in elements if it.data] == objects
    assert b"".join(it.before + it.data for it in elements) == text
    assert splitter.is_closed


def test_most_events_of_a_stream_are_copied_without_a_look() -> None:
    stream = stream_of(STREAM, *[chunk({"text": str(number)}) for number in range(100)])
    stream += stream_of(STREAM, chunk({"text": ""}, finish="STOP"))
    scanner = GEMINI.scanner(STREAM, usage=True)

    assert scanner.feed(stream) == stream
    assert scanner.decoded == 1
