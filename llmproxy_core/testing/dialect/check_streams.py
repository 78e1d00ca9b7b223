"""Streams: read alike however they are cut, copied byte for byte, and never taken for complete when they are not."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from llmproxy_core.chat import ChatEvent, End, Finished, TextDelta
from llmproxy_core.dialect import Api
from llmproxy_core.frame import Frame
from llmproxy_core.sse import split_events
from llmproxy_core.testing.dialect import bodies
from llmproxy_core.testing.dialect.case import Case, ReadStream, scanned_facts
from llmproxy_core.testing.dialect.declared import DeclaredDialect
from llmproxy_core.testing.dialect.json_changes import data_of, event_with_unknown, text_changes_only
from llmproxy_core.testing.dialect.sameness import differences
from llmproxy_core.testing.stream_cuts import cuts, places

EDIT = " (edited 🚲)"


def reads_events_in_order(declared: DeclaredDialect) -> None:
    """Of its own protocol's streams the reader gives neutral events in the order that all writers count on."""
    for api in declared.chat_apis(stream=True):
        for case, stream in bodies.streams(declared, api):
            read = case.read_stream([stream])
            if read.rules.broken:
                case.fail("the events are out of order", read.rules.broken)
            if (joined := b"".join(frame.raw for frame in read.frames)) != stream:
                case.fail("the raw bytes of all frames, joined, are not the stream", [stream[:500], joined[:500]])


def reads_streams_however_they_are_cut(declared: DeclaredDialect) -> None:
    """Wherever the network cuts a stream, the reader gives the same frames, and the scanner tells the same facts."""
    for api in declared.chat_apis(stream=True):
        for case, stream in bodies.streams(declared, api):
            expected = [(frame.raw, frame.events) for frame in case.read_stream([stream]).frames]
            out, scanner = case.copy([stream])
            facts = scanned_facts(scanner)
            for how, pieces in cuts(stream, most=_places(stream)):
                cut = case.but(how)
                if [(frame.raw, frame.events) for frame in cut.read_stream(pieces).frames] != expected:
                    cut.fail("the reader gives other frames; hold back what is incomplete (`llmproxy_core.sse`)")
                again, scanner = cut.copy(pieces)
                if again != out:
                    cut.fail("the scanner lets other bytes through; hold back what is incomplete")
                if found := differences(scanned_facts(scanner), facts):
                    cut.fail("the scanner tells other facts", found)


def _places(stream: bytes) -> int:
    """As many places as keep the work for a stream about the same."""
    return max(10, min(160, 150_000 // len(stream)))


def copies_streams(declared: DeclaredDialect) -> None:
    """
    A stream that nobody changes reaches the client byte for byte, unknown members and all, and its facts are found.

    Copied by the scanner, or read and written again: the bytes are the same. What a client that did not ask for usage
    does not get is the same too.
    """
    for api in declared.chat_apis(stream=True):
        for case, stream in bodies.streams(declared, api):
            _copies(case, stream)
            strange = b"".join(event_with_unknown(frame.raw) for frame in case.read_stream([stream]).frames)
            _copies(case.but("with unknown members"), strange)


def _copies(case: Case, stream: bytes) -> None:
    read = case.read_stream([stream])
    for usage in (True, False):
        out, scanner = case.copy([stream], usage=usage)
        if usage and out != stream[: len(stream) if read.failed is None else len(out)]:
            case.fail("the scanner lets other bytes through than came", [stream[:500], out[:500]])
        if (written := _written(case, read.frames, usage=usage)) != out:
            case.fail(
                f"with usage={usage} untouched frames are written in other bytes than the scanner lets through; give a "
                "frame's own bytes back when its events are its own",
                [out[:500], written[:500]],
            )
        if scanner.done is not read.is_complete or (scanner.error is None) is not (read.failed is None):
            case.fail("the scanner sees another end of the stream than the reader (`done`, `error`)")
        words = tuple(event.finish.word for event in read.events if isinstance(event, Finished))
        told = {"usage": scanner.usage, "model": scanner.model or "", "id": scanner.id or "", "finish": scanner.finish}
        said = {"usage": read.reply.usage, "model": read.reply.model, "id": read.reply.id, "finish": words}
        if found := differences(told, said, but=() if len(set(words)) == len(scanner.finish) else ["finish"]):
            case.fail("the scanner tells something else than the reader", found)


def _written(case: Case, frames: Sequence[Frame], *, usage: bool) -> bytes:
    writer = case.dialect.writer(case.api, usage=usage)
    return b"".join([case.gives(writer.write, frame.events, frame) for frame in frames])


def rewrites_the_text_of_streams_alone(declared: DeclaredDialect) -> None:
    """When a piece of text is changed its string changes, and nothing else of its event; no byte of other events."""
    for api in declared.chat_apis(stream=True):
        for case, stream in bodies.streams(declared, api):
            frames = case.read_stream([stream]).frames
            strange = case.read_stream([b"".join(event_with_unknown(frame.raw) for frame in frames)])
            first = next((at for at, frame in enumerate(strange.frames) if _text_of(frame)), None)
            if first is not None:
                _rewrite(case, strange, first)


def _text_of(frame: Frame) -> TextDelta | None:
    return next((it for it in frame.events if isinstance(it, TextDelta) and it.text and it.logprobs is None), None)


def _rewrite(case: Case, read: ReadStream, at: int) -> None:
    frame = read.frames[at]
    delta = _text_of(frame)
    assert delta is not None
    edited: list[ChatEvent] = [attrs.evolve(it, text=delta.text + EDIT) if it is delta else it for it in frame.events]
    writer = case.dialect.writer(case.api, usage=True)
    before = b"".join([writer.write(it.events, it) for it in read.frames[:at]])
    changed = case.gives(writer.write, edited, frame)
    after = [case.gives(writer.write, it.events, it) for it in read.frames[at + 1 :]]
    again = case.read_stream([before, changed, *after], whole=read.failed is None)
    expected = read.reply.text.replace(delta.text, delta.text + EDIT, 1)
    if again.rules.broken or again.reply.text != expected:
        case.fail(
            f"a text was rewritten, and {again.reply.text!r} is what the client reads instead of {expected!r}",
            again.rules.broken,
        )
    for was, now in zip([frame, *read.frames[at + 1 :]], [changed, *after], strict=True):
        if now and now != was.raw and (found := _more_than_text(was.raw, now, read.reply.text)):
            case.fail(
                "a text was rewritten, and more than it changed in an event; change the string in the frame's bytes "
                "(`llmproxy_core.wire.with_members`)",
                found,
            )


def _more_than_text(was: bytes, now: bytes, text: str) -> list[object]:
    """What differs but for strings of the answer's text: some protocols repeat it at the end."""
    before = data_of(was)
    found: list[object] = [was, now]
    for event in split_events(now):  # what replaces it may be several events, one of which is its own
        if before and (after := data_of(event)):
            found = list(text_changes_only(before, after, lambda string: string in text or text in string))
            if not found:
                break
    return found


def never_completes_a_cut_stream(declared: DeclaredDialect) -> None:
    """A stream whose terminal event has not come whole is not complete, for the scanner and for the reader."""
    for api in declared.chat_apis(stream=True):
        for case, stream in bodies.streams(declared, api):
            for at in _cut_places(case, stream):
                cut = case.but(f"cut before byte {at}, {stream[max(0, at - 20) : at]!r}")
                _, scanner = cut.copy([stream[:at]])
                if scanner.done:
                    cut.fail("the scanner takes the stream for complete; set `done` at the terminal event alone")
                if cut.read_stream([stream[:at]], whole=False).is_complete:
                    cut.fail("the reader takes the stream for complete; give End for the terminal event alone")


def _cut_places(case: Case, stream: bytes) -> list[int]:
    """Places before which the terminal event is not there: the one of the End, else that of the last finish."""
    frames = case.read_stream([stream]).frames
    ends = [at for at, frame in enumerate(frames) if any(isinstance(it, End) and frame.raw for it in frame.events)]
    finishes = [at for at, frame in enumerate(frames) if any(isinstance(it, Finished) for it in frame.events)]
    last = (ends or finishes or [len(frames) - 1])[-1]
    start = sum(len(frame.raw) for frame in frames[:last])
    whole = start + len(frames[last].raw.rstrip())
    boundaries = [sum(len(frame.raw) for frame in frames[:count]) for count in range(last + 1)]
    inside = [at for at in places(stream, most=60) if at <= start]
    return sorted({*boundaries[-40:], *inside, start + (whole - start) // 2})


def tells_what_was_generated(declared: DeclaredDialect) -> None:
    """Of a stream that ends without its usage, the scanner tells how many tokens have passed, about."""
    for api in declared.chat_apis(stream=True):
        for case, stream in bodies.streams(declared, api):
            read = case.read_stream([stream])
            if len(read.reply.text) > _SOME_TEXT:
                _estimates(case, stream)


_SOME_TEXT = 12


def _estimates(case: Case, stream: bytes) -> None:
    _, scanner = case.copy([stream])
    if case.gives(scanner.output_tokens) <= 0:
        case.fail("the scanner tells that no token was given out, though text was (`output_tokens`)")


def keeps_clients_waiting_in_its_own_words(declared: DeclaredDialect) -> None:
    """What `keepalive` sends between two events changes nothing for a reader."""
    for api in declared.chat_apis(stream=True):
        alive = declared.dialect.keepalive(api)
        if alive:
            _is_silent(declared, api, alive)


def _is_silent(declared: DeclaredDialect, api: Api, alive: bytes) -> None:
    for case, stream in bodies.streams(declared, api):
        read = case.read_stream([stream])
        pieces = [piece for frame in read.frames[:-1] for piece in (frame.raw, alive)] + [read.frames[-1].raw]
        again = case.but("kept alive between its events").read_stream(pieces)
        if again.rules.broken or again.reply != read.reply or again.is_complete != read.is_complete:
            case.fail(f"what keeps it alive changes what is read: {alive!r}", again.rules.broken)
