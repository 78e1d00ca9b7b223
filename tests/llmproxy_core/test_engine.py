"""The work on a stream, without any I/O: the cheapest engine that does what was asked, and the same bytes from each."""

from collections.abc import Callable

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core import (
    Api,
    Channel,
    ClientView,
    End,
    GuardrailBlocked,
    InternalError,
    Scanner,
    Secret,
    Stream,
    StreamReader,
    Tasks,
    Unsupported,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    Usage,
)
from llmproxy_core.dialect import Frame, StreamWriter
from llmproxy_core.engine import Copying, Decoding, Engine, Opaque, engine_for, event_steps
from llmproxy_core.response import Replace as Replacement
from llmproxy_core.testing import ScriptedBody
from llmproxy_core.text import Replace
from llmproxy_openai import OpenAIDialect
from tests.answers import DONE, pieces
from tests.llmproxy_core.conversation import (
    CHAT,
    COMPLETIONS,
    DIALECT,
    ERROR_EVENT,
    USED,
    chunk,
    events,
    exchange,
    question,
    said,
    values,
)
from tests.recordings import Recording, recordings, without_usage_chunk

STREAM = b"".join(events("hello ", "wörld"))
WITHOUT_USAGE = without_usage_chunk(STREAM)
STREAMS = [it for it in recordings() if it.is_event_stream and it.protocol == "chat"]


class Watched(OpenAIDialect):
    """Remembers the scanners and readers it made: what was decoded can be counted."""

    def __init__(self) -> None:
        self.scanners: list[Scanner] = []
        self.readers = 0

    def scanner(self, api: Api, *, usage: bool) -> Scanner:
        self.scanners.append(super().scanner(api, usage=usage))
        return self.scanners[-1]

    def reader(self, api: Api) -> StreamReader:
        self.readers += 1
        return super().reader(api)


def _response(
    dialect: OpenAIDialect = DIALECT, *, api: Api | None = CHAT, redact: Callable[[bytes], bytes] | None = None
) -> Stream:
    tasks = Tasks()
    call = exchange(tasks, body=question(stream=True))
    return Stream(call, ScriptedBody([], tasks), dialect=dialect, api=api, redact=redact)


def _client(*, usage: bool = False, dialect: OpenAIDialect = DIALECT, api: Api | None = CHAT) -> ClientView:
    return ClientView(dialect, api, True, usage)


def _play(engine: Engine, *reads: bytes) -> bytes:
    """What all *reads* and the end of the body give."""
    out = b""
    for data in reads:
        if engine.done or engine.error is not None:
            return out
        out += engine.feed(data)
    if not engine.done and engine.error is None:
        out += engine.end()
    return out


def _unseen(channel: Channel) -> None:
    return None


def _both(response: Callable[[], Stream] = _response, *, usage: bool = False) -> list[tuple[Stream, Engine]]:
    """The same stream in the copying engine and in the decoding one, which somebody watches without a look."""
    copied, decoded = response(), response()
    decoded.watch(_unseen)
    return [(copied, engine_for(copied, _client(usage=usage))), (decoded, engine_for(decoded, _client(usage=usage)))]


BOTH = pytest.mark.parametrize("which", [0, 1], ids=["copying", "decoding"])


# -- which engine ----------------------------------------------------------------------------------------------------


def test_nobody_watching_copies() -> None:
    assert isinstance(engine_for(_response(), _client()), Copying)


def test_keeping_the_bytes_copies_too() -> None:
    response = _response()
    response.keep_body(100)

    assert isinstance(engine_for(response, _client()), Copying)


@pytest.mark.parametrize(
    "ask",
    [lambda response: response.watch(_unseen), lambda response: response.rewrite(_unseen)],
    ids=["watch", "rewrite"],
)
def test_somebody_watching_decodes(ask: Callable[[Stream], None]) -> None:
    response = _response()
    ask(response)

    assert isinstance(engine_for(response, _client()), Decoding)


def test_another_wire_form_decodes() -> None:
    assert isinstance(engine_for(_response(), _client(api=COMPLETIONS)), Decoding)


def test_an_answer_of_no_known_form_passes() -> None:
    assert isinstance(engine_for(_response(api=None), _client(api=None)), Opaque)


def test_a_replacement_is_no_step_of_an_engine() -> None:
    response = _response()

    with pytest.raises(TypeError, match="no step"):
        event_steps(response, [Replacement(lambda events: events)], [])


# -- opaque ----------------------------------------------------------------------------------------------------------


def test_opaque_bytes_pass_as_they_are_and_their_end_is_the_end() -> None:
    engine = Opaque()

    passed = engine.feed(b"\x00\xff data: [DONE]\n\n")
    before = engine.done
    last = engine.end()

    assert passed == b"\x00\xff data: [DONE]\n\n"
    assert (before, last, engine.done, engine.error) == (False, b"", True, None)


# -- the same bytes --------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("split", ["whole", "bytes"])
@pytest.mark.parametrize("usage", [False, True])
def test_a_stream_passes_as_it_came_less_a_usage_nobody_asked_for(which: int, split: str, usage: bool) -> None:
    response, engine = _both(usage=usage)[which]

    out = _play(engine, *pieces(STREAM, split))  # type: ignore[arg-type]

    assert out == (STREAM if usage else WITHOUT_USAGE)
    assert (engine.done, engine.error) == (True, None)
    assert (response.usage, response.model, response.finish_words) == (USED, "gpt-4o-mini", ("stop",))


@BOTH
@pytest.mark.parametrize("split", ["whole", "bytes"])
@pytest.mark.parametrize("recording", STREAMS, ids=str)
def test_a_recorded_stream_passes_as_it_came(which: int, split: str, recording: Recording) -> None:
    _, engine = _both(usage=True)[which]

    out = _play(engine, *pieces(recording.response_body, split))  # type: ignore[arg-type]

    if b'"error"' in recording.response_body:
        assert isinstance(engine.error, UpstreamError)
        assert recording.response_body.startswith(out)
    else:
        assert (engine.done, engine.error) == (True, None)
        assert out == recording.response_body


@pytest.mark.parametrize("recording", STREAMS, ids=str)
def test_both_engines_learn_the_same_facts(recording: Recording) -> None:
    (copied, copying), (decoded, decoding) = _both()

    _play(copying, recording.response_body)
    _play(decoding, recording.response_body)

    assert (copied.usage, copied.model) == (decoded.usage, decoded.model)
    assert copied.finish_words == decoded.finish_words
    assert (copying.error is None) == (decoding.error is None)
    if copying.error is not None and decoding.error is not None:
        assert (copying.error.status, copying.error.code) == (decoding.error.status, decoding.error.code)
        assert copying.error.message == decoding.error.message


@BOTH
@given(cuts=st.sets(st.integers(1, len(STREAM) - 1)))
def test_any_split_gives_the_same_bytes(which: int, cuts: set[int]) -> None:
    _, engine = _both()[which]

    assert _play(engine, *pieces(STREAM, cuts)) == WITHOUT_USAGE


@BOTH
def test_what_follows_the_terminal_event_is_not_sent(which: int) -> None:
    _, engine = _both()[which]

    out = engine.feed(STREAM + chunk({"content": "more"}) + DONE)

    assert out == WITHOUT_USAGE
    assert engine.done


@BOTH
def test_comments_pass(which: int) -> None:
    _, engine = _both()[which]

    out = _play(engine, b": keep-alive\n\n", STREAM)

    assert out == b": keep-alive\n\n" + WITHOUT_USAGE


@BOTH
def test_a_last_event_without_its_blank_line_is_made_whole(which: int) -> None:
    _, engine = _both()[which]

    out = _play(engine, STREAM.removesuffix(b"\n"))

    assert out == WITHOUT_USAGE
    assert (engine.done, engine.error) == (True, None)


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
    engine = engine_for(_response(dialect), _client(usage=wants, dialect=dialect))
    reads = pieces(stream, cuts)

    written = [out for data in reads if (out := engine.feed(data))]

    assert engine.done
    assert dialect.readers == 0
    assert [scanner.decoded for scanner in dialect.scanners] == [usages]
    assert len(written) <= len(reads)


def test_a_copied_stream_decodes_an_error_once() -> None:
    dialect = Watched()
    engine = engine_for(_response(dialect), _client(dialect=dialect))

    _play(engine, *events("a", "b", usage=False, finish=None, done=False), ERROR_EVENT)

    assert [scanner.decoded for scanner in dialect.scanners] == [1]
    assert dialect.readers == 0


def test_each_event_of_a_watched_stream_is_decoded_once() -> None:
    dialect = Watched()
    response = _response(dialect)
    for _ in range(3):
        response.watch(_unseen)
    engine = engine_for(response, _client(dialect=dialect))

    _play(engine, STREAM)

    assert dialect.readers == 1
    assert dialect.scanners == []


# -- ends ------------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("split", ["whole", "bytes"])
def test_a_reported_error_ends_the_stream_after_what_was_good(which: int, split: str) -> None:
    _, engine = _both()[which]
    good = b"".join(events("hello", usage=False, finish=None, done=False))

    out = _play(engine, *pieces(good + ERROR_EVENT + STREAM, split))  # type: ignore[arg-type]

    assert out == good
    assert isinstance(engine.error, UpstreamError)
    assert (engine.error.message, engine.error.code) == ("The server is overloaded", "overloaded")
    assert not engine.done


@BOTH
def test_a_stream_without_its_terminal_event_was_cut(which: int) -> None:
    _, engine = _both()[which]

    out = _play(engine, WITHOUT_USAGE.removesuffix(DONE))

    assert out == WITHOUT_USAGE.removesuffix(DONE)
    assert isinstance(engine.error, UpstreamCut)
    assert not engine.done


@BOTH
def test_half_an_event_is_never_sent(which: int) -> None:
    _, engine = _both()[which]

    out = _play(engine, *events("hello", usage=False, finish=None, done=False), b'data: {"id":"c","choices":[{"ind')

    assert said(out) == "hello"
    assert out.endswith(b"\n\n")
    assert isinstance(engine.error, UpstreamCut)


@BOTH
def test_an_endless_event_is_garbage(which: int) -> None:
    _, engine = _both()[which]

    out = engine.feed(b"data: " + b"x" * (2 << 20))

    assert out == b""
    assert isinstance(engine.error, UpstreamGarbage)


def test_garbage_in_a_watched_stream_ends_it_after_what_was_good() -> None:
    _, engine = _both()[1]
    good = events("hello", usage=False, finish=None, done=False)

    out = _play(engine, *good, b"data: {garbage\n\n")

    assert out == b"".join(good)
    assert isinstance(engine.error, UpstreamGarbage)


def test_garbage_in_one_read_with_what_was_good_does_not_swallow_it() -> None:
    """Any split gives the same bytes, of a broken stream too."""
    _, engine = _both()[1]
    good = b"".join(events("hello", usage=False, finish=None, done=False))

    out = _play(engine, good + b"data: {garbage\n\n")

    assert out == good
    assert engine.error is not None
    assert engine.error.code == "upstream_garbage"


def test_an_endless_last_event_is_garbage_at_the_end_too() -> None:
    """A reader may find out only when the body ends."""

    class Late(OpenAIDialect):
        def reader(self, api: Api) -> StreamReader:
            return Broken()

        def scanner(self, api: Api, *, usage: bool) -> Scanner:
            return BrokenScanner(self.name, usage)

    for subscribed in (False, True):
        response = _response(Late())
        if subscribed:
            response.watch(_unseen)
        engine = engine_for(response, _client(dialect=Late()))

        assert _play(engine, b"") == b""
        assert isinstance(engine.error, UpstreamGarbage)


class Broken:
    def feed(self, data: bytes) -> list[Frame]:
        return []

    def end(self) -> list[Frame]:
        raise UpstreamGarbage("a torn event")


class BrokenScanner:
    def __init__(self, name: str, usage: bool) -> None:
        self.usage: Usage | None = None
        self.model: str | None = None
        self.finish: tuple[str, ...] = ()
        self.done = False
        self.error: UpstreamError | None = None
        self.decoded = 0

    def feed(self, data: bytes) -> bytes:
        return data

    def end(self) -> bytes:
        raise UpstreamGarbage("a torn event")


QUOTING = b'data: {"error":{"message":"Key sk-canary is over its limit","type":"server_error"}}\n\n'


@BOTH
def test_a_reported_error_tells_no_secret(which: int) -> None:
    _, engine = _both(lambda: _response(redact=Secret("sk-canary").redact))[which]

    engine.feed(QUOTING)

    assert isinstance(engine.error, UpstreamError)
    assert engine.error.message == "Key *** is over its limit"
    assert b"sk-canary" not in (engine.error.body or b"")


# -- watchers and filters in the stream ------------------------------------------------------------------------------


class Blocking:
    def __init__(self, error: Exception) -> None:
        self._error = error
        self._seen = ""

    def feed(self, text: str) -> None:
        self._seen += text
        if "wörld" in self._seen:
            raise self._error

    def end(self) -> None: ...


def _blocked_by(error: Exception) -> Engine:
    response = _response()
    response.watch(lambda channel: Blocking(error))
    return engine_for(response, _client())


@pytest.mark.parametrize("split", ["whole", "bytes"])
def test_a_watcher_stops_the_stream_before_what_it_saw(split: str) -> None:
    engine = _blocked_by(GuardrailBlocked("no"))

    out = _play(engine, *pieces(STREAM, split))  # type: ignore[arg-type]

    assert said(out) == "hello "
    assert isinstance(engine.error, GuardrailBlocked)
    assert not engine.done


def test_a_bug_of_a_watcher_fails_the_stream_after_what_was_good(caplog: pytest.LogCaptureFixture) -> None:
    engine = _blocked_by(ZeroDivisionError("a bug"))

    out = _play(engine, STREAM)

    assert said(out) == "hello "
    assert isinstance(engine.error, InternalError)
    assert engine.error.code == "processor_failed"
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("split", ["whole", "bytes"])
def test_rewritten_text_goes_out_in_its_chunks(split: str) -> None:
    response = _response()
    response.rewrite(lambda channel: Replace({"hello w": "goodbye w"}))
    engine = engine_for(response, _client())

    out = _play(engine, *pieces(STREAM, split))  # type: ignore[arg-type]

    assert said(out) == "goodbye wörld"
    assert engine.done
    assert all(value["object"] == "chat.completion.chunk" and value["id"] for value in values(out))


def test_what_a_filter_held_comes_before_the_finish() -> None:
    response = _response()
    response.rewrite(lambda channel: Replace({"wörld!": "?"}))
    engine = engine_for(response, _client())

    out = _play(engine, STREAM)

    spoken = [value["choices"][0] for value in values(out)]
    assert said(out) == "hello wörld"
    assert [it["finish_reason"] for it in spoken if it["finish_reason"]] == ["stop"]
    assert spoken[-1]["finish_reason"] == "stop"


def test_what_the_clients_protocol_cannot_say_ends_its_stream() -> None:
    @attrs.define
    class Speechless:
        def write(self, events: object, frame: object) -> bytes:
            raise Unsupported("no word for it", param="x")

    class Mute(OpenAIDialect):
        name = "mute"

        def writer(self, api: Api, *, usage: bool) -> StreamWriter:
            return Speechless()

    engine = engine_for(_response(), _client(dialect=Mute(), api=COMPLETIONS))

    assert _play(engine, STREAM) == b""
    assert isinstance(engine.error, Unsupported)


def test_every_subscription_sees_what_the_one_before_it_left() -> None:
    seen: list[str] = []

    class Log:
        def feed(self, text: str) -> None:
            seen.append(text)

        def end(self) -> None: ...

    response = _response()
    response.rewrite(lambda channel: Replace({"hello": "A"}))
    response.watch(lambda channel: Log())
    response.rewrite(lambda channel: Replace({"A": "B"}))
    engine = engine_for(response, _client())

    out = _play(engine, STREAM)

    assert "".join(seen) == "A wörld"
    assert said(out) == "B wörld"


def test_an_ended_response_keeps_what_its_stream_told() -> None:
    response, engine = _both()[0]
    _play(engine, STREAM)

    response.finish(End.COMPLETED)

    assert response.outcome is not None
    assert (response.outcome.usage, response.outcome.model, response.outcome.finish) == (
        USED,
        "gpt-4o-mini",
        ("stop",),
    )
