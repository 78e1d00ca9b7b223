"""The work on a stream, without any I/O: the cheapest engine that does what was asked, and the same bytes from each."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core import (
    MOST_FINISH_WORDS,
    Stream,
    UpstreamError,
)
from llmproxy_core.chat import End, Finish, Finished, FinishReason
from llmproxy_core.engine import Copying, Decoding, Facts, Opaque, engine_for, event_steps
from llmproxy_core.subscription import Replace as Replacement
from tests.answers import DONE, chat_chunk, pieces, sse
from tests.llmproxy_core.conversation import (
    COMPLETIONS,
    ERROR_EVENT,
    USED,
    chunk,
    events,
)
from tests.llmproxy_core.engines import (
    BOTH,
    STREAM,
    STREAMS,
    WITHOUT_USAGE,
    Watched,
    both,
    client_of,
    play,
    response_of,
    unseen,
)
from tests.recordings import Recording

# -- which engine ----------------------------------------------------------------------------------------------------


def test_nobody_watching_copies() -> None:
    assert isinstance(engine_for(response_of(), client_of()), Copying)


def test_keeping_the_bytes_copies_too() -> None:
    response = response_of()
    response.keep_body(100)

    assert isinstance(engine_for(response, client_of()), Copying)


@pytest.mark.parametrize(
    "ask",
    [lambda response: response.watch(unseen), lambda response: response.rewrite(unseen)],
    ids=["watch", "rewrite"],
)
def test_somebody_watching_decodes(ask: Callable[[Stream], None]) -> None:
    response = response_of()
    ask(response)

    assert isinstance(engine_for(response, client_of()), Decoding)


def test_another_wire_form_decodes() -> None:
    assert isinstance(engine_for(response_of(), client_of(api=COMPLETIONS)), Decoding)


def test_an_answer_of_no_known_form_passes() -> None:
    assert isinstance(engine_for(response_of(api=None), client_of(api=None)), Opaque)


def test_a_replacement_is_no_step_of_an_engine() -> None:
    response = response_of()

    with pytest.raises(TypeError, match="no step"):
        event_steps(response, [Replacement(lambda events: events)], [])


# -- opaque ----------------------------------------------------------------------------------------------------------


def test_opaque_bytes_pass_as_they_are_and_their_end_is_the_end() -> None:
    response = response_of(api=None)
    engine = Opaque(response)
    assert response.first_byte_s is None

    passed = engine.feed(b"\x00\xff data: [DONE]\n\n")
    before = engine.done
    last = engine.end()

    assert passed == b"\x00\xff data: [DONE]\n\n"
    assert (before, last, engine.done, engine.error) == (False, b"", True, None)
    assert response.first_byte_s is not None


# -- the same bytes --------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("split", ["whole", "bytes"])
@pytest.mark.parametrize("usage", [False, True])
def test_a_stream_passes_as_it_came_less_a_usage_nobody_asked_for(which: int, split: str, usage: bool) -> None:
    response, engine = both(usage=usage)[which]

    out = play(engine, *pieces(STREAM, split))  # type: ignore[arg-type]

    assert out == (STREAM if usage else WITHOUT_USAGE)
    assert (engine.done, engine.error) == (True, None)
    assert (response.usage, response.model, response.finish_words) == (USED, "gpt-4o-mini", ("stop",))


@BOTH
@pytest.mark.parametrize("split", ["whole", "bytes"])
@pytest.mark.parametrize("recording", STREAMS, ids=str)
def test_a_recorded_stream_passes_as_it_came(which: int, split: str, recording: Recording) -> None:
    _, engine = both(usage=True)[which]

    out = play(engine, *pieces(recording.response_body, split))  # type: ignore[arg-type]

    if b'"error"' in recording.response_body:
        assert isinstance(engine.error, UpstreamError)
        assert recording.response_body.startswith(out)
    else:
        assert (engine.done, engine.error) == (True, None)
        assert out == recording.response_body


@pytest.mark.parametrize("recording", STREAMS, ids=str)
def test_both_engines_learn_the_same_facts(recording: Recording) -> None:
    (copied, copying), (decoded, decoding) = both()

    play(copying, recording.response_body)
    play(decoding, recording.response_body)

    assert (copied.usage, copied.model) == (decoded.usage, decoded.model)
    assert copied.finish_words == decoded.finish_words
    assert (copying.error is None) == (decoding.error is None)
    if copying.error is not None and decoding.error is not None:
        assert (copying.error.status, copying.error.code) == (decoding.error.status, decoding.error.code)
        assert copying.error.message == decoding.error.message


@BOTH
@given(cuts=st.sets(st.integers(1, len(STREAM) - 1)))
def test_any_split_gives_the_same_bytes(which: int, cuts: set[int]) -> None:
    _, engine = both()[which]

    assert play(engine, *pieces(STREAM, cuts)) == WITHOUT_USAGE


@BOTH
def test_what_follows_the_terminal_event_is_not_sent(which: int) -> None:
    _, engine = both()[which]

    out = engine.feed(STREAM + chunk({"content": "more"}) + DONE)

    assert out == WITHOUT_USAGE
    assert engine.done


@BOTH
def test_comments_pass(which: int) -> None:
    _, engine = both()[which]

    out = play(engine, b": keep-alive\n\n", STREAM)

    assert out == b": keep-alive\n\n" + WITHOUT_USAGE


@BOTH
def test_a_last_event_without_its_blank_line_is_made_whole(which: int) -> None:
    _, engine = both()[which]

    out = play(engine, STREAM.removesuffix(b"\n"))

    assert out == WITHOUT_USAGE
    assert (engine.done, engine.error) == (True, None)


@BOTH
@pytest.mark.parametrize("split", ["whole", "bytes"])
def test_of_an_endless_number_of_finish_words_the_last_are_kept(which: int, split: str) -> None:
    response, engine = both()[which]
    words = ["stop"] * 200 + ["length"]
    choices = [{"index": index, "delta": {}, "finish_reason": word} for index, word in enumerate(words)]

    play(engine, *pieces(sse(*[chat_chunk(None) | {"choices": [it]} for it in choices]), split))  # type: ignore[arg-type]

    assert response.finish_words == (*["stop"] * (MOST_FINISH_WORDS - 1), "length")


def test_a_finish_without_a_word_of_the_providers_is_told_by_its_reason() -> None:
    response = response_of()
    facts = Facts(response)

    facts.look([Finished(0, Finish(FinishReason.STOP)), Finished(1, Finish(FinishReason.STOP, "end_turn")), End()])

    assert response.finish_words == ("stop", "end_turn")
    assert facts.done


# -- the counts that guard the hot path ------------------------------------------------------------------------------


@given(
    texts=st.lists(st.text(max_size=10), max_size=12),
    usages=st.integers(0, 2),
    wants=st.booleans(),
    cuts=st.sets(st.integers(1, 5000), max_size=40),
)
def test_a_copied_stream_decodes_only_what_tells_usage_and_is_written_once_a_read(
    texts: list[str], usages: int, wants: bool, cuts: set[int]
) -> None:
    dialect = Watched()
    usage_events = [event for event in events() if b'"usage"' in event] * usages
    stream = b"".join([*events(*texts, usage=False, done=False), *usage_events, DONE])
    engine = engine_for(response_of(dialect), client_of(usage=wants, dialect=dialect))
    reads = pieces(stream, cuts)

    written = [out for data in reads if (out := engine.feed(data))]

    assert engine.done
    assert dialect.readers == 0
    assert [scanner.decoded for scanner in dialect.scanners] == [usages]
    assert len(written) <= len(reads)


def test_a_copied_stream_decodes_an_error_once() -> None:
    dialect = Watched()
    engine = engine_for(response_of(dialect), client_of(dialect=dialect))

    play(engine, *events("a", "b", usage=False, finish=None, done=False), ERROR_EVENT)

    assert [scanner.decoded for scanner in dialect.scanners] == [1]
    assert dialect.readers == 0


def test_each_event_of_a_watched_stream_is_decoded_once() -> None:
    dialect = Watched()
    response = response_of(dialect)
    for _ in range(3):
        response.watch(unseen)
    engine = engine_for(response, client_of(dialect=dialect))

    play(engine, STREAM)

    assert dialect.readers == 1
    assert dialect.scanners == []
