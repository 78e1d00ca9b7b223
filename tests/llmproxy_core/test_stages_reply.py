"""What watchers and filters do to the text of a whole answer: the same as to its pieces."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core import Channel, GuardrailBlocked, TextFilter
from llmproxy_core.chat import (
    AudioPart,
    ChatEvent,
    ChatReply,
    Choice,
    Finished,
    OpaquePart,
    Part,
    Raw,
    ReasoningDelta,
    RefusalDelta,
    Source,
    Start,
    TextDelta,
    TextPart,
    ToolCall,
)
from llmproxy_core.reply_events import Assembler, events_of
from llmproxy_core.stages import Filtering, Watching, apply_to_events, apply_to_reply
from llmproxy_core.text import Replace
from tests.llmproxy_core.filters import (
    PARTS_WITH_TEXT,
    STOP,
    TEXT,
    Logging,
    hold,
    reply_of,
    upper,
)

# -- whole replies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channel", "part"), PARTS_WITH_TEXT, ids=[str(channel) for channel, _ in PARTS_WITH_TEXT])
def test_every_part_is_watched_and_left_the_same_object(channel: Channel, part: Callable[[str], Part]) -> None:
    logging, reply = Logging(), reply_of(part("abc"))

    passed = apply_to_reply(Watching(logging), reply)

    assert passed is reply
    assert logging.seen == [(channel, "abc"), (channel, None)]


@pytest.mark.parametrize(("channel", "part"), PARTS_WITH_TEXT, ids=[str(channel) for channel, _ in PARTS_WITH_TEXT])
def test_every_part_is_rewritten(channel: Channel, part: Callable[[str], Part]) -> None:
    assert apply_to_reply(Filtering(upper), reply_of(part("abc"))) == reply_of(part("ABC"))


@pytest.mark.parametrize(("channel", "part"), PARTS_WITH_TEXT, ids=[str(channel) for channel, _ in PARTS_WITH_TEXT])
def test_what_a_filter_holds_of_a_part_is_put_into_it(channel: Channel, part: Callable[[str], Part]) -> None:
    assert apply_to_reply(Filtering(hold), reply_of(part("abc"))) == reply_of(part("<abc>"))


def test_parts_without_text_are_the_same_objects() -> None:
    parts: tuple[Part, ...] = (OpaquePart("x", Raw("a", b"{}")), AudioPart(Source(data="QUJD")), TextPart("a"))

    passed = apply_to_reply(Filtering(upper), reply_of(*parts)).choices[0].content

    assert passed[0] is parts[0]
    assert passed[1] is parts[1]
    assert passed[2] == TextPart("A")


def test_a_reply_whose_text_stays_as_it_was_is_the_same_object() -> None:
    reply = reply_of(TextPart("ABC"), logprobs=b'{"content":[1]}')

    assert apply_to_reply(Filtering(upper), reply) is reply


def test_a_rewritten_reply_drops_the_logprobs_of_that_choice_alone() -> None:
    reply = ChatReply(
        "id", "m", (Choice(0, (TextPart("a"),), STOP, b'{"content":[1]}'), Choice(1, (TextPart("B"),), STOP, b"{}"))
    )

    passed = apply_to_reply(Filtering(upper), reply)

    assert passed.choices[0] == Choice(0, (TextPart("A"),), STOP)
    assert passed.choices[1] is reply.choices[1]


def test_sound_of_a_reply_whose_words_were_rewritten_is_not_sent() -> None:
    part = AudioPart(Source(data="QUJD", media_type="audio/wav"), "a1", "abc")

    passed = apply_to_reply(Filtering(upper), reply_of(part))

    assert passed == reply_of(AudioPart(Source(data="", media_type="audio/wav"), "a1", "ABC"))


def test_the_calls_of_a_reply_are_numbered_as_in_a_stream() -> None:
    logging = Logging()
    reply = reply_of(ToolCall("a", "f", "1"), TextPart("x"), ToolCall("b", "g", "2"))

    apply_to_reply(Watching(logging), reply)

    assert logging.made == [Channel(0, "arguments", 0), TEXT, Channel(0, "arguments", 1)]


def test_text_that_runs_over_two_parts_is_one_text() -> None:
    """A filter is not fooled by a part's border, and what it held comes in the last part."""
    passed = apply_to_reply(
        Filtering(lambda channel: Replace({"secret": "***"})), reply_of(TextPart("a se"), TextPart("cret b"))
    )

    assert passed.choices[0].text == "a *** b"


def test_a_watcher_of_a_reply_may_refuse_it() -> None:
    class Verdict:
        def feed(self, text: str) -> None: ...

        def end(self) -> None:
            raise GuardrailBlocked("no")

    with pytest.raises(GuardrailBlocked):
        apply_to_reply(Watching(lambda channel: Verdict()), reply_of(TextPart("a")))


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
