"""Errors, both ways: read whatever their envelope, told in the client's own, and never taken for an end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

from llmproxy_core.chat import ChatEvent, Failed, TextDelta
from llmproxy_core.dialect import Api, Scanner, StreamWriter
from llmproxy_core.errors import (
    BadRequest,
    BudgetExceeded,
    GuardrailBlocked,
    InternalError,
    Overloaded,
    PayloadTooLarge,
    ProxyError,
    RateLimited,
    RouteNotFound,
    Unauthorized,
    UpstreamAuthError,
    UpstreamCut,
    UpstreamError,
    UpstreamTimeout,
)
from llmproxy_core.headers import Headers
from llmproxy_core.testing.dialect import answers, bodies
from llmproxy_core.testing.dialect.case import Case
from llmproxy_core.testing.dialect.declared import DeclaredDialect
from llmproxy_core.testing.dialect.envelopes import ANSWERS, NEVER_RETRY, OUR_KEY, SAID, WAITS, ErrorAnswer
from llmproxy_core.testing.dialect.event_orders import STRANGER
from llmproxy_core.testing.dialect.json_changes import strings
from llmproxy_core.testing.verdict import NotConforming

STRANGE_BODY = b'{"strange":"a foreign envelope"}'
REQUEST_ID = "request-17"
_ABOUT_A_KEY = frozenset({401, 402, 403})
"""What a provider says with these is about our key; a client's own may be told so too."""


def _made() -> tuple[ProxyError, ...]:
    """Errors of our own, and of a provider that speaks something else."""
    return (
        BadRequest("Said wrongly", param="messages"),
        Unauthorized("Nobody knows you"),
        BudgetExceeded("All is spent"),
        GuardrailBlocked("Not this word"),
        RouteNotFound("Nothing lives here"),
        PayloadTooLarge("Too much"),
        RateLimited("Too many", retry_after_s=3),
        InternalError("A bug"),
        Overloaded("Too busy"),
        UpstreamAuthError("The provider refused our key"),
        UpstreamCut("It was cut"),
        UpstreamTimeout("Nothing came"),
        *(
            UpstreamError(
                f"A foreign error {status}",
                status=status,
                code="strange_code",
                error_type="strange_type",
                dialect=STRANGER,
                body=STRANGE_BODY,
                upstream_status=status,
            )
            for status in (400, 404, 409, 413, 422, 429, 500, 502, 503, 504, 529)
        ),
    )


def _fail(where: object, what: str) -> NoReturn:
    raise NotConforming(f"{where}: {what}")


def _read(declared: DeclaredDialect, answer: ErrorAnswer) -> UpstreamError:
    try:
        return declared.dialect.read_error(answer.status, Headers(answer.headers), answer.body)
    except Exception as error:
        raise NotConforming(
            f"{answer}: read_error raises {error!r}; it must read whatever comes (`llmproxy_core.wire.read_error` does)"
        ) from error


def reads_every_error(declared: DeclaredDialect) -> None:
    """Whatever shape an error arrives in, it has a message, its status, and how long to wait before the next try."""
    for answer in ANSWERS:
        error = _read(declared, answer)
        if not error.message.strip():
            _fail(answer, "it is read as an error without a message")
        if error.status != answer.status or error.upstream_status != answer.status:
            _fail(answer, f"its status became {error.status} (upstream_status {error.upstream_status})")
    for answer, wait_s in WAITS:
        error = _read(declared, answer)
        if error.retry_after_s != wait_s or not error.retryable:
            _fail(f"{answer} with {answer.headers}", f"wait {wait_s} s became {error.retry_after_s} (`retry_after_s`)")
    for answer in NEVER_RETRY:
        if _read(declared, answer).retryable:
            _fail(answer, "it will come again, and counts as retryable")


def hides_what_is_said_of_our_key(declared: DeclaredDialect) -> None:
    """What the provider says of our own key is the operator's affair: nothing of it reaches a client."""
    for answer in OUR_KEY:
        error = _read(declared, answer)
        if not isinstance(error, UpstreamAuthError) or error.status != 502:
            _fail(answer, "it is about our key: give `llmproxy_core.wire.auth_error`")
        shown = declared.dialect.write_error(error, REQUEST_ID)
        if error.body is not None or SAID in error.message or SAID.encode() in shown:
            _fail(answer, f"the provider's own words reach the client: {shown[:300]!r}")


def passes_its_own_errors(declared: DeclaredDialect) -> None:
    """Clients of the protocol get the provider's error as it came; those recorded too."""
    own = [ErrorAnswer(error.status, error.body, error.headers) for error in declared.errors]
    own += [ErrorAnswer(made.status, declared.dialect.write_error(made, "")) for made in (RateLimited("Slow down"),)]
    for answer in own:
        error = _read(declared, answer)
        if isinstance(error, UpstreamAuthError):
            continue
        out = declared.dialect.write_error(error, REQUEST_ID)
        if error.dialect != declared.dialect.name or out != answer.body:
            _fail(answer, f"a client of the same protocol gets another body: {out[:300]!r}")


def tells_errors_in_its_own_words(declared: DeclaredDialect) -> None:
    """Our own errors, and those of other protocols, are told in the protocol's own envelope, message and all."""
    for error in _made():
        where = f"{type(error).__name__} {error.status} ({error.message!r})"
        try:
            body = declared.dialect.write_error(error, REQUEST_ID)
            status = declared.dialect.error_status(error)
            told = list(strings(body))
        except Exception as bug:
            raise NotConforming(f"{where}: write_error or error_status raises {bug!r}") from bug
        if not any(error.message in text for text in told):
            _fail(where, f"its message is not told: {body[:300]!r}")
        if STRANGE_BODY in body:
            _fail(where, f"the body of another protocol is no envelope of this one: {body[:300]!r}")
        if not 400 <= status <= 599 or status // 100 != error.status // 100:
            _fail(where, f"its status became {status}: whose fault it is must stay")
        again = _read(declared, ErrorAnswer(429 if status in _ABOUT_A_KEY else status, body))
        if error.message not in again.message:
            _fail(where, f"its own reader reads {again.message!r} of it: {body[:300]!r}")


def ends_failed_streams(declared: DeclaredDialect) -> None:
    """
    A stream that fails ends in one whole event that tells the error, and never looks complete.

    To a client that has heard nothing yet, and to one that has heard half, of the scanner or of a writer.
    """
    for api in declared.chat_apis(stream=True):
        for case, before, told in _heard_before(declared, api):
            for error in _made():
                _ends(case, before, told, error)


def _heard_before(declared: DeclaredDialect, api: Api) -> Iterator[tuple[Case, bytes, Scanner | StreamWriter | None]]:
    """What a client got before the error: nothing, half a stream that was copied, half of one that was written."""
    yield Case(declared, api, "an error before the first event"), b"", None
    for case, stream in bodies.streams(declared, api):
        read = case.read_stream([stream])
        if read.failed is not None:
            continue
        frames = read.frames
        half = b"".join(frame.raw for frame in frames[: len(frames) // 2])
        scanner = declared.dialect.scanner(api, usage=True)
        yield case.but("an error in the middle of the copy"), case.gives(scanner.feed, half), scanner
    events = list(bodies.in_pieces(answers.plain_events(declared)))
    for count in range(1, len(events)):
        writer = declared.dialect.writer(api, usage=True)
        before = b"".join([writer.write([event], None) for event in events[:count]])
        yield Case(declared, api, f"an error after {count} events that were written"), before, writer


def _ends(case: Case, before: bytes, told: Scanner | StreamWriter | None, error: ProxyError) -> None:
    case = case.but(f"{type(error).__name__}")
    last = case.gives(case.dialect.error_event, error, REQUEST_ID, case.api, told)
    read = case.read_stream([before, last], whole=False)
    if not any(isinstance(event, Failed) for event in _without_end(case, before + last)):
        case.fail(f"the event is not whole: a client waits for the rest of it: {last[-200:]!r}")
    if read.is_complete or read.failed is None:
        case.fail(f"the client's reader sees no failure; tell it in an event, and nothing after it: {last[:500]!r}")
    if error.message.encode() not in last:
        case.fail(f"the message is not told: {last[:500]!r}")
    if STRANGE_BODY in last:
        case.fail(f"the body of another protocol is no event of this one: {last[:300]!r}")
    _, scanner = case.copy([before, last])
    if scanner.done or scanner.error is None:
        case.fail(f"the scanner sees no failure (`error`) in {last[:500]!r}")
    if (
        told is not None
        and not case.recorded
        and (found := case.declared.grammar(case.api, before + last, failed=True))
    ):
        case.fail("the failed stream breaks the rules of the protocol", [*found, (before + last)[-800:]])


def _without_end(case: Case, stream: bytes) -> list[ChatEvent]:
    """What a client has heard while it waits for more."""
    frames = case.gives(case.dialect.reader(case.api).feed, stream)
    return [event for frame in frames for event in frame.events]


def keeps_what_was_said_before_an_error(declared: DeclaredDialect) -> None:
    """Of a stream that tells an error in its middle, what came before it is read, then a Failed, and nothing more."""
    error = UpstreamError("It broke", status=503, code="broken")
    for api in declared.chat_apis(stream=True):
        for case, stream in bodies.streams(declared, api):
            whole = case.read_stream([stream])
            if whole.failed is not None:
                continue
            frames = whole.frames
            at = 1 + next((at for at, frame in enumerate(frames) if _says_text(frame.events)), len(frames) // 2)
            at = min(at, len(frames) - 1)
            half = b"".join(frame.raw for frame in frames[:at])
            scanner = declared.dialect.scanner(api, usage=True)
            scanner.feed(half)
            broken = half + case.gives(declared.dialect.error_event, error, "", api, scanner)
            read = case.but("an error in its middle").read_stream([broken], whole=False)
            expected = [event for frame in frames[:at] for event in frame.events]
            if read.events[: len(expected)] != expected or not isinstance(read.events[-1], Failed):
                case.fail("what was said before the error is lost, or more follows it", read.events)


def _says_text(events: object) -> bool:
    assert isinstance(events, list)
    return any(isinstance(event, TextDelta) for event in events)
