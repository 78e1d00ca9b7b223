"""What watchers and filters do to the text of an answer in pieces."""

from collections.abc import Callable

import pytest

from llmproxy_core import Channel, GuardrailBlocked, TextFilter
from llmproxy_core.chat import (
    AudioDelta,
    ChatEvent,
    End,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from llmproxy_core.stages import Filtering, Watching, apply_to_events
from llmproxy_core.text import Replace
from tests.llmproxy_core.filters import (
    EVENTS_WITH_TEXT,
    EVENTS_WITHOUT_TEXT,
    STOP,
    TEXT,
    Logging,
    Upper,
    hold,
    upper,
)

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
    assert apply_to_events(Filtering(upper), [event("a"), event("B")]) == [event("A"), event("B")]


@pytest.mark.parametrize(("channel", "event"), EVENTS_WITH_TEXT, ids=[str(channel) for channel, _ in EVENTS_WITH_TEXT])
@pytest.mark.parametrize("last", [Finished(1, STOP), End()])
def test_what_a_filter_holds_is_flushed_before_the_end(
    channel: Channel, event: Callable[[str], ChatEvent], last: ChatEvent
) -> None:
    passed = apply_to_events(Filtering(hold), [event("a"), event("b"), last])

    assert passed == [event(""), event(""), event("<ab>"), last]


def test_the_end_of_one_choice_does_not_flush_another() -> None:
    stage = Filtering(hold)

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

    assert apply_to_events(Filtering(upper), [event])[0] is event


def test_rewritten_text_drops_its_logprobs() -> None:
    """They spell the tokens that are not sent."""
    assert apply_to_events(Filtering(upper), [TextDelta(0, "a", b'{"content":[1]}')]) == [TextDelta(0, "A")]


def test_rewritten_thinking_keeps_whose_it_is() -> None:
    event = ReasoningDelta(0, "a", provider="p", member="reasoning", summary=True)

    assert apply_to_events(Filtering(upper), [event]) == [
        ReasoningDelta(0, "A", provider="p", member="reasoning", summary=True)
    ]


def test_sound_whose_words_were_rewritten_is_not_sent() -> None:
    passed = apply_to_events(Filtering(upper), [AudioDelta(0, "QUJD", "abc", "a1")])

    assert passed == [AudioDelta(0, None, "ABC", "a1")]


@pytest.mark.parametrize("event", EVENTS_WITHOUT_TEXT, ids=lambda event: type(event).__name__)
def test_events_without_text_pass_untouched(event: ChatEvent) -> None:
    assert apply_to_events(Filtering(upper), [event])[0] is event


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
    passed = apply_to_events(Filtering(hold), [TextDelta(0, "a"), Finished(0, STOP), TextDelta(0, "b"), End()])

    assert passed == [
        TextDelta(0, ""),
        TextDelta(0, "<a>"),
        Finished(0, STOP),
        TextDelta(0, ""),
        TextDelta(0, "<b>"),
        End(),
    ]
