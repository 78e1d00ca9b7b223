"""A whole answer and the events of a stream say the same, and either is made of the other."""

import base64
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core import Usage
from llmproxy_core.chat import (
    AudioDelta,
    AudioPart,
    ChatEvent,
    ChatReply,
    Choice,
    Citation,
    CitationAdded,
    DocumentPart,
    End,
    Failed,
    Finish,
    Finished,
    FinishReason,
    ImagePart,
    OpaqueEvent,
    OpaquePart,
    Part,
    Ping,
    Raw,
    ReasoningDelta,
    ReasoningPart,
    RefusalDelta,
    RefusalPart,
    Source,
    Start,
    TextDelta,
    TextPart,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    ToolResult,
    UsageReported,
)
from llmproxy_core.reply_events import Assembler, answers, events_of

STOP = Finish(FinishReason.STOP, "stop")
CITATION = Citation("url", url="https://example.com", start=0, end=2)


def _reply(*parts: Part, logprobs: bytes | None = None, finish: Finish | None = STOP) -> ChatReply:
    return ChatReply("id", "m", (Choice(0, parts, finish, logprobs),))


def _assembled(*events: ChatEvent) -> ChatReply:
    assembler = Assembler()
    for event in events:
        assembler.feed([event])
    return assembler.reply()


def _content(*events: ChatEvent) -> tuple[Part, ...]:
    return _assembled(Start("id", "m"), *events, End()).choices[0].content


# -- whole to events -------------------------------------------------------------------------------------------------


def test_a_reply_begins_with_what_all_events_share_and_ends_once() -> None:
    reply = ChatReply("id", "m", (), Usage(1, 2), 7, "flex", "fp")

    assert events_of(reply) == [Start("id", "m", 7, "flex", "fp"), UsageReported(Usage(1, 2)), End()]


def test_a_reply_without_usage_reports_none() -> None:
    assert events_of(ChatReply("id", "m", ())) == [Start("id", "m"), End()]


PARTS: list[tuple[Part, list[ChatEvent]]] = [
    (TextPart("hi"), [TextDelta(0, "hi")]),
    (TextPart("hi", (CITATION,)), [TextDelta(0, "hi"), CitationAdded(0, CITATION)]),
    (RefusalPart("no"), [RefusalDelta(0, "no")]),
    (
        ReasoningPart("hm", signature="s", redacted="r", encrypted="e", provider="p", member="reasoning", summary=True),
        [ReasoningDelta(0, "hm", "s", "r", "e", "p", "reasoning", True)],
    ),
    (
        ToolCall("call", "look", '{"a":1}', signature="s"),
        [ToolCallStart(0, 0, "call", "look", "function", "s"), ToolCallDelta(0, 0, '{"a":1}')],
    ),
    (AudioPart(Source(data="QUJD"), "a1", "abc"), [AudioDelta(0, "QUJD", "abc", "a1")]),
    (OpaquePart("server_tool", Raw("x.chat", b"{}")), [OpaqueEvent("server_tool", b"{}", 0, "x.chat")]),
    (TextPart("hi", signature="s"), [TextDelta(0, "hi", signature="s")]),
    (ReasoningPart("hm", id="rs_1"), [ReasoningDelta(0, "hm", id="rs_1")]),
    (
        ToolCall("call", "look", "1", item_id="fc_1"),
        [ToolCallStart(0, 0, "call", "look", item_id="fc_1"), ToolCallDelta(0, 0, "1")],
    ),
]


@pytest.mark.parametrize(("part", "events"), PARTS, ids=[type(part).__name__ for part, _ in PARTS])
def test_each_part_becomes_its_events(part: Part, events: list[ChatEvent]) -> None:
    assert events_of(_reply(part))[1:-1] == [*events, Finished(0, STOP)]


@pytest.mark.parametrize(
    "part", [ImagePart(Source(url="u")), DocumentPart(Source(url="u")), ToolResult("call", (TextPart("x"),))]
)
def test_parts_of_requests_alone_say_nothing_in_a_stream(part: Part) -> None:
    assert events_of(_reply(part))[1:-1] == [Finished(0, STOP)]


def test_tool_calls_are_numbered_without_gaps_among_other_parts() -> None:
    events = events_of(_reply(ToolCall("a", "f", "1"), TextPart("x"), ToolCall("b", "g", "2")))

    starts = [(event.index, event.id) for event in events if isinstance(event, ToolCallStart)]
    assert starts == [(0, "a"), (1, "b")]


def test_logprobs_go_with_the_first_text() -> None:
    events = events_of(_reply(ReasoningPart("hm"), TextPart("hi", (CITATION,)), TextPart("!"), logprobs=b'{"c":[]}'))

    assert [event for event in events if isinstance(event, TextDelta)] == [
        TextDelta(0, "hi", b'{"c":[]}'),
        TextDelta(0, "!"),
    ]
    assert CitationAdded(0, CITATION) in events


def test_logprobs_of_an_answer_without_text_are_not_lost() -> None:
    """OpenAI gives logprobs of a refusal too."""
    events = events_of(_reply(RefusalPart("no"), logprobs=b'{"refusal":[]}'))

    assert TextDelta(0, "", b'{"refusal":[]}') in events


def test_a_choice_that_was_not_finished_has_no_finish_event() -> None:
    assert events_of(_reply(TextPart("hi"), finish=None)) == [Start("id", "m"), TextDelta(0, "hi"), End()]


def test_every_choice_keeps_its_index() -> None:
    reply = ChatReply("id", "m", (Choice(0, (TextPart("a"),), STOP), Choice(1, (TextPart("b"),), STOP)))

    assert events_of(reply)[1:-1] == [TextDelta(0, "a"), Finished(0, STOP), TextDelta(1, "b"), Finished(1, STOP)]


# -- events to whole -------------------------------------------------------------------------------------------------


def test_deltas_of_one_kind_in_a_row_are_one_part() -> None:
    assert _content(TextDelta(0, "a"), TextDelta(0, "b"), RefusalDelta(0, "n"), RefusalDelta(0, "o")) == (
        TextPart("ab"),
        RefusalPart("no"),
    )


def test_a_change_of_kind_begins_a_part() -> None:
    assert _content(ReasoningDelta(0, "1"), TextDelta(0, "a"), ReasoningDelta(0, "2"), TextDelta(0, "b")) == (
        ReasoningPart("1"),
        TextPart("a"),
        ReasoningPart("2"),
        TextPart("b"),
    )


def test_a_citation_belongs_to_the_text_around_it() -> None:
    assert _content(TextDelta(0, "a"), CitationAdded(0, CITATION), TextDelta(0, "b")) == (TextPart("ab", (CITATION,)),)


def test_a_citation_before_any_text_is_kept() -> None:
    assert _content(CitationAdded(0, CITATION)) == (TextPart("", (CITATION,)),)


@pytest.mark.parametrize("events", [[TextDelta(0, "")], [RefusalDelta(0, "")], [OpaqueEvent("x", b"{}")]])
def test_what_says_nothing_makes_no_part(events: list[ChatEvent]) -> None:
    assert _assembled(Start("id", "m"), *events, Finished(0, STOP)).choices[0].content == ()


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (TextDelta(0, "hi"), True),
        (TextDelta(0, ""), False),
        (RefusalDelta(0, ""), False),
        (ReasoningDelta(0, "hm"), True),
        (ReasoningDelta(0, ""), False),
        (ReasoningDelta(0, "", redacted="r"), True),
        (ReasoningDelta(0, "", id="i"), False),
        (AudioDelta(0, id="a"), False),
        (AudioDelta(0, data="QUJD"), True),
        (ToolCallStart(0, 0, "c", "f"), True),
        (OpaqueEvent("vendor_note", b"{}"), False),
        (OpaqueEvent("server_tool", b"{}", 0, "x.chat"), True),
        (Finished(0, STOP), True),
        (Start("id", "m"), False),
        (Ping(), False),
    ],
)
def test_an_event_answers_something_when_there_is_something_in_it(event: ChatEvent, expected: bool) -> None:
    assert answers(event) is expected


def test_pings_and_failures_are_no_part_of_the_answer() -> None:
    reply = _assembled(Start("id", "m"), Ping(), Failed("broken"), End())

    assert reply == ChatReply("id", "m", ())


def test_a_signature_ends_its_thinking() -> None:
    first = ReasoningDelta(0, "one", provider="anthropic", member="thinking", summary=True)

    parts = _content(first, ReasoningDelta(0, "", signature="s1"), ReasoningDelta(0, "two"))

    assert parts == (
        ReasoningPart("one", signature="s1", provider="anthropic", member="thinking", summary=True),
        ReasoningPart("two"),
    )


def test_redacted_thinking_is_a_part_of_its_own() -> None:
    parts = _content(ReasoningDelta(0, "one"), ReasoningDelta(0, "", redacted="r"), ReasoningDelta(0, "two"))

    assert parts == (ReasoningPart("one"), ReasoningPart("", redacted="r"), ReasoningPart("two"))


def test_encrypted_thinking_stays_with_its_text() -> None:
    parts = _content(ReasoningDelta(0, "one"), ReasoningDelta(0, "", encrypted="e"))

    assert parts == (ReasoningPart("one", encrypted="e"),)


def test_pieces_of_several_calls_may_be_interleaved() -> None:
    parts = _content(
        ToolCallStart(0, 0, "a", "f", signature="s"),
        ToolCallStart(0, 1, "b", "g", "custom"),
        ToolCallDelta(0, 1, "2"),
        ToolCallDelta(0, 0, "1"),
        ToolCallDelta(0, 1, "2"),
    )

    assert parts == (ToolCall("a", "f", "1", signature="s"), ToolCall("b", "g", "22", "custom"))


def test_text_between_the_pieces_of_a_call_does_not_cut_it() -> None:
    parts = _content(
        ToolCallStart(0, 0, "a", "f"), ToolCallDelta(0, 0, "1"), TextDelta(0, "x"), ToolCallDelta(0, 0, "2")
    )

    assert parts == (ToolCall("a", "f", "12"), TextPart("x"))


def test_arguments_of_a_call_that_never_began_are_dropped() -> None:
    assert _content(TextDelta(0, "x"), ToolCallDelta(0, 5, "{}")) == (TextPart("x"),)


def test_sound_is_joined_as_sound_not_as_base64() -> None:
    """Each piece is base64 of its own, padding included."""
    pieces = [base64.b64encode(data).decode() for data in (b"a", b"bc", b"def")]

    parts = _content(
        AudioDelta(0, None, "he", "a1"),
        *(AudioDelta(0, piece) for piece in pieces),
        AudioDelta(0, None, "llo"),
    )

    assert parts == (AudioPart(Source(data=base64.b64encode(b"abcdef").decode()), "a1", "hello"),)


def test_sound_without_words_has_no_transcript() -> None:
    assert _content(AudioDelta(0, "QUJD")) == (AudioPart(Source(data="QUJD")),)


def test_logprobs_of_all_pieces_are_one_list_in_order() -> None:
    reply = _assembled(
        TextDelta(0, "a", b'{"content":[1],"refusal":null}'),
        TextDelta(0, "b", b'{"content":[2,3],"refusal":null}'),
        TextDelta(0, "", b'{"content":null,"refusal":[4]}'),
    )

    assert reply.choices[0].logprobs == b'{"content":[1,2,3],"refusal":[4]}'


def test_logprobs_of_two_pieces_are_both_kept() -> None:
    reply = _assembled(TextDelta(0, "a", b'{"content":[1]}'), TextDelta(0, "b", b'{"content":[2]}'))

    assert reply.choices[0].logprobs == b'{"content":[1,2]}'


def test_logprobs_of_one_piece_stay_as_they_are() -> None:
    assert _assembled(TextDelta(0, "a", b'{ "content": [1] }')).choices[0].logprobs == b'{ "content": [1] }'


def test_choices_come_in_the_order_of_their_index() -> None:
    reply = _assembled(TextDelta(2, "c"), TextDelta(0, "a"), Finished(2, STOP))

    assert [(choice.index, choice.text, choice.finish) for choice in reply.choices] == [(0, "a", None), (2, "c", STOP)]


def test_the_last_usage_counts() -> None:
    assert _assembled(UsageReported(Usage(1)), UsageReported(Usage(2))).usage == Usage(2)


def test_what_has_come_so_far_is_a_reply() -> None:
    assert _assembled() == ChatReply("", "", ())


def test_parts_that_only_their_protocol_knows_stay_apart_and_in_their_place() -> None:
    raw = Raw("x.chat", b"{}")

    assert _content(
        TextDelta(0, "a"), OpaqueEvent("k", b"{}", 0, "x.chat"), OpaqueEvent("k", b"{}", 0, "x.chat"), TextDelta(0, "b")
    ) == (TextPart("a"), OpaquePart("k", raw), OpaquePart("k", raw), TextPart("b"))


def test_a_signature_belongs_to_the_text_before_it() -> None:
    assert _content(TextDelta(0, "a"), TextDelta(0, "", signature="s")) == (TextPart("a", signature="s"),)
    assert _content(TextDelta(0, "", signature="s")) == (TextPart("", signature="s"),)


# -- both ways -------------------------------------------------------------------------------------------------------

_texts = st.text(min_size=1, max_size=5)
_tool_calls = st.builds(ToolCall, _texts, _texts, st.text(max_size=5), st.sampled_from(["function", "custom"]))
_alternating = st.lists(
    st.one_of(
        _texts.map(TextPart),
        _texts.map(RefusalPart),
        st.builds(ReasoningPart, st.text(max_size=5), signature=_texts),
        _tool_calls,
    ),
    max_size=5,
).filter(  # two texts in a row are one in a stream
    lambda parts: all(type(one) is not type(two) for one, two in itertools.pairwise(parts))
)
_replies = st.lists(_alternating, max_size=3).map(
    lambda contents: ChatReply(
        "id",
        "m",
        tuple(Choice(index, tuple(parts), STOP) for index, parts in enumerate(contents)),
        Usage(3, 4),
        created=5,
        service_tier="flex",
        fingerprint="fp",
    )
)


@given(_replies)
def test_a_reply_that_went_through_a_stream_is_the_same(reply: ChatReply) -> None:
    assert _assembled(*events_of(reply)) == reply
