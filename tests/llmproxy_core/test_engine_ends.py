"""How a stream ends: cut, reported, garbled, stopped by a watcher; and what was sent before."""

import attrs
import pytest

from llmproxy_core import (
    Api,
    End,
    GuardrailBlocked,
    InternalError,
    Scanner,
    Secret,
    StreamReader,
    Unsupported,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    Usage,
)
from llmproxy_core.dialect import StreamWriter
from llmproxy_core.engine import Engine, engine_for
from llmproxy_core.frame import Frame
from llmproxy_core.sse import DEFAULT_MAX_EVENT_BYTES
from llmproxy_core.text import Replace
from llmproxy_core.token_estimate import ROUGH, Tokenizer
from llmproxy_openai import OpenAIDialect
from tests.answers import DONE, pieces
from tests.llmproxy_core.conversation import (
    COMPLETIONS,
    ERROR_EVENT,
    USED,
    events,
    said,
    values,
)
from tests.llmproxy_core.engines import (
    BOTH,
    STREAM,
    WITHOUT_USAGE,
    both,
    client_of,
    play,
    response_of,
    unseen,
)

# -- ends ------------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("split", ["whole", "bytes"])
def test_a_reported_error_ends_the_stream_after_what_was_good(which: int, split: str) -> None:
    _, engine = both()[which]
    good = b"".join(events("hello", usage=False, finish=None, done=False))

    out = play(engine, *pieces(good + ERROR_EVENT + STREAM, split))  # type: ignore[arg-type]

    assert out == good
    assert isinstance(engine.error, UpstreamError)
    assert (engine.error.message, engine.error.code) == ("The server is overloaded", "overloaded")
    assert not engine.done


@BOTH
def test_a_stream_without_its_terminal_event_was_cut(which: int) -> None:
    _, engine = both()[which]

    out = play(engine, WITHOUT_USAGE.removesuffix(DONE))

    assert out == WITHOUT_USAGE.removesuffix(DONE)
    assert isinstance(engine.error, UpstreamCut)
    assert not engine.done


@BOTH
def test_half_an_event_is_never_sent(which: int) -> None:
    _, engine = both()[which]

    out = play(engine, *events("hello", usage=False, finish=None, done=False), b'data: {"id":"c","choices":[{"ind')

    assert said(out) == "hello"
    assert out.endswith(b"\n\n")
    assert isinstance(engine.error, UpstreamCut)


@BOTH
def test_an_endless_event_is_garbage(which: int) -> None:
    _, engine = both()[which]

    out = engine.feed(b"data: " + b"x" * DEFAULT_MAX_EVENT_BYTES)

    assert out == b""
    assert isinstance(engine.error, UpstreamGarbage)


def test_garbage_in_a_watched_stream_ends_it_after_what_was_good() -> None:
    _, engine = both()[1]
    good = events("hello", usage=False, finish=None, done=False)

    out = play(engine, *good, b"data: {garbage\n\n")

    assert out == b"".join(good)
    assert isinstance(engine.error, UpstreamGarbage)


def test_garbage_in_one_read_with_what_was_good_does_not_swallow_it() -> None:
    """Any split gives the same bytes, of a broken stream too."""
    _, engine = both()[1]
    good = b"".join(events("hello", usage=False, finish=None, done=False))

    out = play(engine, good + b"data: {garbage\n\n")

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
        response = response_of(Late())
        if subscribed:
            response.watch(unseen)
        engine = engine_for(response, client_of(dialect=Late()))

        assert play(engine, b"") == b""
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
        self.id: str | None = None
        self.finish: tuple[str, ...] = ()
        self.done = False
        self.error: UpstreamError | None = None
        self.decoded = 0

    def feed(self, data: bytes) -> bytes:
        return data

    def end(self) -> bytes:
        raise UpstreamGarbage("a torn event")

    def output_tokens(self, tokenizer: Tokenizer = ROUGH) -> int:
        return 0


QUOTING = b'data: {"error":{"message":"Key sk-canary is over its limit","type":"server_error"}}\n\n'


@BOTH
def test_a_reported_error_tells_no_secret(which: int) -> None:
    _, engine = both(lambda: response_of(redact=Secret("sk-canary").redact))[which]

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
    response = response_of()
    response.watch(lambda channel: Blocking(error))
    return engine_for(response, client_of())


@pytest.mark.parametrize("split", ["whole", "bytes"])
def test_a_watcher_stops_the_stream_before_what_it_saw(split: str) -> None:
    engine = _blocked_by(GuardrailBlocked("no"))

    out = play(engine, *pieces(STREAM, split))  # type: ignore[arg-type]

    assert said(out) == "hello "
    assert isinstance(engine.error, GuardrailBlocked)
    assert not engine.done


def test_a_bug_of_a_watcher_fails_the_stream_after_what_was_good(caplog: pytest.LogCaptureFixture) -> None:
    engine = _blocked_by(ZeroDivisionError("a bug"))

    out = play(engine, STREAM)

    assert said(out) == "hello "
    assert isinstance(engine.error, InternalError)
    assert engine.error.code == "processor_failed"
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("split", ["whole", "bytes"])
def test_rewritten_text_goes_out_in_its_chunks(split: str) -> None:
    response = response_of()
    response.rewrite(lambda channel: Replace({"hello w": "goodbye w"}))
    engine = engine_for(response, client_of())

    out = play(engine, *pieces(STREAM, split))  # type: ignore[arg-type]

    assert said(out) == "goodbye wörld"
    assert engine.done
    assert all(value["object"] == "chat.completion.chunk" and value["id"] for value in values(out))


def test_what_a_filter_held_comes_before_the_finish() -> None:
    response = response_of()
    response.rewrite(lambda channel: Replace({"wörld!": "?"}))
    engine = engine_for(response, client_of())

    out = play(engine, STREAM)

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

    engine = engine_for(response_of(), client_of(dialect=Mute(), api=COMPLETIONS))

    assert play(engine, STREAM) == b""
    assert isinstance(engine.error, Unsupported)


def test_every_subscription_sees_what_the_one_before_it_left() -> None:
    seen: list[str] = []

    class Log:
        def feed(self, text: str) -> None:
            seen.append(text)

        def end(self) -> None: ...

    response = response_of()
    response.rewrite(lambda channel: Replace({"hello": "A"}))
    response.watch(lambda channel: Log())
    response.rewrite(lambda channel: Replace({"A": "B"}))
    engine = engine_for(response, client_of())

    out = play(engine, STREAM)

    assert "".join(seen) == "A wörld"
    assert said(out) == "B wörld"


def test_an_ended_response_keeps_what_its_stream_told() -> None:
    response, engine = both()[0]
    play(engine, STREAM)

    response.finish(End.COMPLETED)

    assert response.outcome is not None
    assert (response.outcome.usage, response.outcome.model, response.outcome.finish) == (
        USED,
        "gpt-4o-mini",
        ("stop",),
    )
