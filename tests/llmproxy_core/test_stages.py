"""What watchers and filters do to the text of an answer, in pieces and whole."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core import Channel, GuardrailBlocked, TextFilter, Watcher
from llmproxy_core.chat import (
    AudioDelta,
    AudioPart,
    ChatEvent,
    ChatReply,
    Choice,
    Citation,
    CitationAdded,
    End,
    Finish,
    Finished,
    FinishReason,
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
    UsageReported,
)
from llmproxy_core.reply_events import Assembler, events_of
from llmproxy_core.stages import SPOKEN, Filtering, Watching, apply_to_events, apply_to_reply
from llmproxy_core.text import Replace
from llmproxy_core.usage import Usage

STOP = Finish(FinishReason.STOP, "stop")
TEXT = Channel(0, "text")


def _reply(*parts: Part, logprobs: bytes | None = None) -> ChatReply:
    return ChatReply("id", "m", (Choice(0, parts, STOP, logprobs),))


class Log:
    """A watcher that writes down what it sees, with its channel."""

    def __init__(self, seen: list[tuple[Channel, str | None]], channel: Channel) -> None:
        self._seen = seen
        self._channel = channel

    def feed(self, text: str) -> None:
        self._seen.append((self._channel, text))

    def end(self) -> None:
        self._seen.append((self._channel, None))


class Logging:
    """Makes a watcher for each channel; *seen* is what all of them saw, None for an end."""

    def __init__(self) -> None:
        self.seen: list[tuple[Channel, str | None]] = []
        self.made: list[Channel] = []

    def __call__(self, channel: Channel) -> Watcher:
        self.made.append(channel)
        return Log(self.seen, channel)


class Upper:
    """A filter that holds nothing."""

    def feed(self, text: str) -> str:
        return text.upper()

    def flush(self) -> str:
        return ""


class HoldAll:
    """A filter that gives nothing until its channel has ended."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        self._held += text
        return ""

    def flush(self) -> str:
        return f"<{self._held}>"


def _upper(channel: Channel) -> TextFilter:
    return Upper()


def _hold(channel: Channel) -> TextFilter:
    return HoldAll()


EVENTS_WITH_TEXT: list[tuple[Channel, Callable[[str], ChatEvent]]] = [
    (Channel(1, "text"), lambda text: TextDelta(1, text)),
    (Channel(1, "reasoning"), lambda text: ReasoningDelta(1, text)),
    (Channel(1, "refusal"), lambda text: RefusalDelta(1, text)),
    (Channel(1, "arguments", 2), lambda text: ToolCallDelta(1, 2, text)),
    (Channel(1, "text", SPOKEN), lambda text: AudioDelta(1, None, text)),
]
PARTS_WITH_TEXT: list[tuple[Channel, Callable[[str], Part]]] = [
    (Channel(0, "text"), TextPart),
    (Channel(0, "reasoning"), ReasoningPart),
    (Channel(0, "refusal"), RefusalPart),
    (Channel(0, "arguments", 0), lambda text: ToolCall("call", "f", text)),
    (Channel(0, "text", SPOKEN), lambda text: AudioPart(Source(data=""), "a1", text)),
]
EVENTS_WITHOUT_TEXT: list[ChatEvent] = [
    Start("id", "m"),
    Ping(),
    ToolCallStart(0, 0, "call", "f"),
    CitationAdded(0, Citation("url")),
    AudioDelta(0, "QUJD"),
    UsageReported(Usage(1)),
]


# -- watching a stream -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channel", "event"), EVENTS_WITH_TEXT, ids=[str(channel) for channel, _ in EVENTS_WITH_TEXT])
def test_every_channel_has_a_watcher_of_its_own(channel: Channel, event: Callable[[str], ChatEvent]) -> None:
    logging, events = Logging(), [event("a"), event("b")]

    passed = apply_to_events(Watching(logging), events)

    assert logging.made == [channel]
    assert logging.seen == [(channel, "a"), (channel, "b")]
    assert passed == events


def test_a_watched_event_is_the_same_object() -> None:
    events: list[ChatEvent] = [TextDelta(0, "a", b'{"content":[1]}'), *EVENTS_WITHOUT_TEXT]

    passed = apply_to_events(Watching(Logging()), events)

    assert all(one is other for one, other in zip(passed, events, strict=True))


def test_a_channel_may_pass_unseen() -> None:
    stage = Watching(lambda channel: None)

    assert apply_to_events(stage, [TextDelta(0, "a"), Finished(0, STOP), End()])[0] == TextDelta(0, "a")


def test_the_watchers_of_a_choice_end_with_it_and_the_rest_with_the_stream() -> None:
    logging = Logging()
    stage = Watching(logging)

    apply_to_events(stage, [TextDelta(0, "a"), TextDelta(1, "b"), ReasoningDelta(0, "c"), Finished(0, STOP)])
    after_first = [channel for channel, text in logging.seen if text is None]
    apply_to_events(stage, [End()])

    assert after_first == [Channel(0, "text"), Channel(0, "reasoning")]
    assert [channel for channel, text in logging.seen if text is None][2:] == [Channel(1, "text")]


def test_a_watcher_ends_once() -> None:
    logging = Logging()

    apply_to_events(Watching(logging), [TextDelta(0, "a"), Finished(0, STOP), End()])

    assert logging.seen == [(TEXT, "a"), (TEXT, None)]


def test_an_empty_text_is_shown_to_nobody() -> None:
    logging = Logging()

    apply_to_events(Watching(logging), [TextDelta(0, "", b"{}")])

    assert logging.seen == []


def test_what_a_watcher_raises_passes_through() -> None:
    class Blocking:
        def feed(self, text: str) -> None:
            raise GuardrailBlocked("no")

        def end(self) -> None: ...

    with pytest.raises(GuardrailBlocked):
        apply_to_events(Watching(lambda channel: Blocking()), [TextDelta(0, "a")])


def test_a_watcher_may_give_its_verdict_at_the_end() -> None:
    class Verdict:
        def feed(self, text: str) -> None: ...

        def end(self) -> None:
            raise GuardrailBlocked("too long")

    stage = Watching(lambda channel: Verdict())
    apply_to_events(stage, [TextDelta(0, "a")])

    with pytest.raises(GuardrailBlocked):
        apply_to_events(stage, [Finished(0, STOP)])


# -- rewriting a stream ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channel", "event"), EVENTS_WITH_TEXT, ids=[str(channel) for channel, _ in EVENTS_WITH_TEXT])
def test_every_channel_is_rewritten(channel: Channel, event: Callable[[str], ChatEvent]) -> None:
    assert apply_to_events(Filtering(_upper), [event("a"), event("B")]) == [event("A"), event("B")]


@pytest.mark.parametrize(("channel", "event"), EVENTS_WITH_TEXT, ids=[str(channel) for channel, _ in EVENTS_WITH_TEXT])
@pytest.mark.parametrize("last", [Finished(1, STOP), End()])
def test_what_a_filter_holds_is_flushed_before_the_end(
    channel: Channel, event: Callable[[str], ChatEvent], last: ChatEvent
) -> None:
    passed = apply_to_events(Filtering(_hold), [event("a"), event("b"), last])

    assert passed == [event(""), event(""), event("<ab>"), last]


def test_the_end_of_one_choice_does_not_flush_another() -> None:
    stage = Filtering(_hold)

    first = apply_to_events(stage, [TextDelta(0, "a"), TextDelta(1, "b"), Finished(0, STOP)])
    rest = apply_to_events(stage, [Finished(1, STOP), End()])

    assert first[2:] == [TextDelta(0, "<a>"), Finished(0, STOP)]
    assert rest == [TextDelta(1, "<b>"), Finished(1, STOP), End()]


def test_two_choices_and_two_calls_never_share_a_filter() -> None:
    stage = Filtering(lambda channel: Replace({"ab": "X"}))

    passed = apply_to_events(
        stage,
        [
            TextDelta(0, "a"),
            TextDelta(1, "b"),
            ToolCallDelta(0, 0, "a"),
            ToolCallDelta(0, 1, "b"),
            ReasoningDelta(0, "a"),
            RefusalDelta(0, "b"),
            End(),
        ],
    )

    assert "X" not in repr(passed)


def test_an_event_that_a_filter_left_as_it_was_is_the_same_object() -> None:
    event = TextDelta(0, "A", b'{"content":[1]}')

    assert apply_to_events(Filtering(_upper), [event])[0] is event


def test_rewritten_text_drops_its_logprobs() -> None:
    """They spell the tokens that are not sent."""
    assert apply_to_events(Filtering(_upper), [TextDelta(0, "a", b'{"content":[1]}')]) == [TextDelta(0, "A")]


def test_rewritten_thinking_keeps_whose_it_is() -> None:
    event = ReasoningDelta(0, "a", provider="p", member="reasoning", summary=True)

    assert apply_to_events(Filtering(_upper), [event]) == [
        ReasoningDelta(0, "A", provider="p", member="reasoning", summary=True)
    ]


def test_sound_whose_words_were_rewritten_is_not_sent() -> None:
    passed = apply_to_events(Filtering(_upper), [AudioDelta(0, "QUJD", "abc", "a1")])

    assert passed == [AudioDelta(0, None, "ABC", "a1")]


@pytest.mark.parametrize("event", EVENTS_WITHOUT_TEXT, ids=lambda event: type(event).__name__)
def test_events_without_text_pass_untouched(event: ChatEvent) -> None:
    assert apply_to_events(Filtering(_upper), [event])[0] is event


def test_a_channel_without_a_filter_passes_unchanged() -> None:
    def only_text(channel: Channel) -> TextFilter | None:
        return Upper() if channel.kind == "text" else None

    stage = Filtering(only_text)
    events: list[ChatEvent] = [ReasoningDelta(0, "hm"), TextDelta(0, "a"), ReasoningDelta(0, "hm"), End()]

    assert apply_to_events(stage, events) == [
        ReasoningDelta(0, "hm"),
        TextDelta(0, "A"),
        ReasoningDelta(0, "hm"),
        End(),
    ]


def test_text_after_a_finish_has_a_new_filter_and_is_flushed_with_the_stream() -> None:
    passed = apply_to_events(Filtering(_hold), [TextDelta(0, "a"), Finished(0, STOP), TextDelta(0, "b"), End()])

    assert passed == [
        TextDelta(0, ""),
        TextDelta(0, "<a>"),
        Finished(0, STOP),
        TextDelta(0, ""),
        TextDelta(0, "<b>"),
        End(),
    ]


# -- whole replies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channel", "part"), PARTS_WITH_TEXT, ids=[str(channel) for channel, _ in PARTS_WITH_TEXT])
def test_every_part_is_watched_and_left_the_same_object(channel: Channel, part: Callable[[str], Part]) -> None:
    logging, reply = Logging(), _reply(part("abc"))

    passed = apply_to_reply(Watching(logging), reply)

    assert passed is reply
    assert logging.seen == [(channel, "abc"), (channel, None)]


@pytest.mark.parametrize(("channel", "part"), PARTS_WITH_TEXT, ids=[str(channel) for channel, _ in PARTS_WITH_TEXT])
def test_every_part_is_rewritten(channel: Channel, part: Callable[[str], Part]) -> None:
    assert apply_to_reply(Filtering(_upper), _reply(part("abc"))) == _reply(part("ABC"))


@pytest.mark.parametrize(("channel", "part"), PARTS_WITH_TEXT, ids=[str(channel) for channel, _ in PARTS_WITH_TEXT])
def test_what_a_filter_holds_of_a_part_is_put_into_it(channel: Channel, part: Callable[[str], Part]) -> None:
    assert apply_to_reply(Filtering(_hold), _reply(part("abc"))) == _reply(part("<abc>"))


def test_parts_without_text_are_the_same_objects() -> None:
    parts: tuple[Part, ...] = (OpaquePart("x", Raw("a", b"{}")), AudioPart(Source(data="QUJD")), TextPart("a"))

    passed = apply_to_reply(Filtering(_upper), _reply(*parts)).choices[0].content

    assert passed[0] is parts[0]
    assert passed[1] is parts[1]
    assert passed[2] == TextPart("A")


def test_a_reply_whose_text_stays_as_it_was_is_the_same_object() -> None:
    reply = _reply(TextPart("ABC"), logprobs=b'{"content":[1]}')

    assert apply_to_reply(Filtering(_upper), reply) is reply


def test_a_rewritten_reply_drops_the_logprobs_of_that_choice_alone() -> None:
    reply = ChatReply(
        "id", "m", (Choice(0, (TextPart("a"),), STOP, b'{"content":[1]}'), Choice(1, (TextPart("B"),), STOP, b"{}"))
    )

    passed = apply_to_reply(Filtering(_upper), reply)

    assert passed.choices[0] == Choice(0, (TextPart("A"),), STOP)
    assert passed.choices[1] is reply.choices[1]


def test_sound_of_a_reply_whose_words_were_rewritten_is_not_sent() -> None:
    part = AudioPart(Source(data="QUJD", media_type="audio/wav"), "a1", "abc")

    passed = apply_to_reply(Filtering(_upper), _reply(part))

    assert passed == _reply(AudioPart(Source(data="", media_type="audio/wav"), "a1", "ABC"))


def test_the_calls_of_a_reply_are_numbered_as_in_a_stream() -> None:
    logging = Logging()
    reply = _reply(ToolCall("a", "f", "1"), TextPart("x"), ToolCall("b", "g", "2"))

    apply_to_reply(Watching(logging), reply)

    assert logging.made == [Channel(0, "arguments", 0), TEXT, Channel(0, "arguments", 1)]


def test_text_that_runs_over_two_parts_is_one_text() -> None:
    """A filter is not fooled by a part's border, and what it held comes in the last part."""
    passed = apply_to_reply(
        Filtering(lambda channel: Replace({"secret": "***"})), _reply(TextPart("a se"), TextPart("cret b"))
    )

    assert passed.choices[0].text == "a *** b"


def test_a_watcher_of_a_reply_may_refuse_it() -> None:
    class Verdict:
        def feed(self, text: str) -> None: ...

        def end(self) -> None:
            raise GuardrailBlocked("no")

    with pytest.raises(GuardrailBlocked):
        apply_to_reply(Watching(lambda channel: Verdict()), _reply(TextPart("a")))


# -- both ways -------------------------------------------------------------------------------------------------------


@given(
    texts=st.lists(st.text("secrt ", max_size=8), min_size=1, max_size=8),
    kind=st.sampled_from([TextDelta, ReasoningDelta, RefusalDelta]),
)
def test_a_filter_changes_a_stream_as_it_changes_the_whole(
    texts: list[str], kind: Callable[[int, str], ChatEvent]
) -> None:
    def make(channel: Channel) -> TextFilter:
        return Replace({"secret": "***", "sect": "#"})

    whole = Assembler()
    whole.feed([Start("id", "m"), *(kind(0, text) for text in texts), Finished(0, STOP)])
    pieces = Assembler()
    pieces.feed(
        apply_to_events(Filtering(make), [Start("id", "m"), *(kind(0, text) for text in texts), Finished(0, STOP)])
    )

    changed = apply_to_reply(Filtering(make), whole.reply())

    assert pieces.reply() == changed
    again = Assembler()
    again.feed(apply_to_events(Filtering(make), events_of(whole.reply())))
    assert again.reply() == changed
