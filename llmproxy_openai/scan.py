"""A stream that is copied as bytes, watched as cheaply as the protocol allows."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from llmproxy_core.errors import UpstreamError, UpstreamGarbage
from llmproxy_core.outcome import MOST_FINISH_WORDS
from llmproxy_core.sse import BOM, CR, EventSplitter, SSEError, event_start, parse_event, split_events
from llmproxy_core.token_estimate import ROUGH, Tokenizer, estimated_output, estimated_tokens
from llmproxy_core.usage import Usage
from llmproxy_core.wire.last_event import completed, is_done
from llmproxy_core.wire.mould import MOST_MOULDS, Mould, middle_event
from llmproxy_core.wire.sample import Sample
from llmproxy_core.wire.splice import json_text
from llmproxy_openai.facts import Outline, decode_outline, error_in, model_in, stream_error, usage_in

# Quotes inside a JSON string are escaped, so none of these can match in what the model says; a member of that name
# deeper inside can, and the decoded event decides.
_USAGE = re.compile(rb'"usage"\s*:\s*\{').search
_ERROR = b'"error"'  # also vLLM's {"object": "error"}
_END = b"data: [DONE]\n\n"  # as nearly all write it
_MODEL = re.compile(rb'"model"\s*:\s*"([^"\\]*)"').search
_ID = re.compile(rb'"id"\s*:\s*"([^"\\]+)"').search
_FINISH_START = re.compile(rb'"finish_reason"\s*:\s*"').search
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"([^"\\]*)"')
_READS_FOR_MODEL = 8
"""Each chunk names the model; a stream whose first reads do not will not."""
_TEXT = re.compile(
    rb'"(content|reasoning_content|reasoning|refusal|text|transcript|name|arguments)"\s*:\s*'
    rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)"'
).finditer
"""What a model says, in the members that all wire forms say it in."""


class ChunkScanner:
    """
    A Scanner for the streams of all wire forms.

    Decodes only events that may tell usage or an error. A block without data that is no comment is left out, for
    clients choke on it.
    """

    __slots__ = (
        "_dialect",
        "_is_over",
        "_mould",
        "_moulds_left",
        "_reads_for_model",
        "_sample",
        "_size",
        "_splitter",
        "_wants_usage",
        "decoded",
        "done",
        "error",
        "finish",
        "id",
        "model",
        "usage",
    )

    def __init__(self, dialect: str, *, usage: bool) -> None:
        self._dialect = dialect
        self._wants_usage = usage
        self._splitter = EventSplitter()
        self._is_over = False
        self._reads_for_model = _READS_FOR_MODEL
        self._mould: Mould | None = None
        self._moulds_left = MOST_MOULDS
        self._size = 0  # without what the mould has passed
        self._sample = Sample()
        self.usage: Usage | None = None
        self.model: str | None = None
        self.id: str | None = None
        self.finish: tuple[str, ...] = ()
        self.done = False
        self.error: UpstreamError | None = None
        self.decoded = 0

    def feed(self, data: bytes) -> bytes:
        """See Scanner. UpstreamGarbage when an event is longer than the bound. Bytes after the end are dropped."""
        if self._is_over:
            return b""
        splitter, mould = self._splitter, self._mould
        if mould is not None and not (splitter.held or self._reads_for_model) and mould.fits(data):  # nearly all reads
            if self._sample.left > 0:
                self._sample.add(data, mould)
            return data
        try:
            block = splitter.feed(data)
        except SSEError as error:
            self._is_over = True
            raise UpstreamGarbage("An event of the provider's stream is too long") from error
        return self._pass(block) if block else b""

    @property
    def passes(self) -> Callable[[bytes, bytes], bool] | None:
        """See QuickScanner: nearly all reads are one event of the mould."""
        mould = self._mould
        if mould is None or self._splitter.held or self._reads_for_model or self._is_over:
            return None
        return self._sample.watched(mould)

    def end(self) -> bytes:
        """See Scanner."""
        if self._is_over:
            return b""
        whole = completed(self._splitter.end())
        return self._pass(whole) if whole else b""

    def output_tokens(self, tokenizer: Tokenizer = ROUGH) -> int:
        """See Scanner: what the beginning of the stream says, and as much of the rest by its length."""
        sample = self._sample.data
        said: list[str] = []
        names = 0
        for found in _TEXT(sample):
            if text := found[2]:
                said.append(json_text(text))
                names += found[1] == b"name"
        size = self._size if self._mould is None else self._size + self._mould.passed_bytes
        if not said:  # nothing yet, or one event that is longer than all of this
            return 0 if size == len(sample) else estimated_tokens(size)
        tokens = estimated_output(tokenizer.count("".join(said)), len(said), names)
        return -(-tokens * size // len(sample))

    def _pass(self, block: bytes) -> bytes:
        """What of *block*, of whole events, may go on."""
        if not block.endswith(_END):
            return self._noted(self._look(block))
        before = block[: -len(_END)]
        if before and not before.endswith(b"\n\n"):  # the line belongs to a longer event
            return self._noted(self._look(block))
        out = self._noted(self._look(before)) if before else b""
        if self._is_over:
            return out
        self.done = self._is_over = True
        return block if len(out) == len(before) else out + _END  # not copied: a read may be a whole stream

    def _look(self, block: bytes) -> bytes:
        if self._reads_for_model:
            self._look_for_model(block)
        first, last = self._quiet_part(block)
        if last - first == len(block):
            return block
        if first == last:
            return self._look_at_all(block)
        before = self._look_at_all(block[:first]) if first else b""
        if self._is_over:
            return before
        after = self._look_at_all(block[last:]) if last < len(block) else b""
        if len(before) + len(after) == first + len(block) - last:  # nothing was left out
            return block
        return b"".join([before, block[first:last], after])

    def _quiet_part(self, block: bytes) -> tuple[int, int]:
        """From where to where *block* surely tells nothing; the same twice: nowhere."""
        if self._mould is not None:
            first, last = self._mould.quiet(block)
            if last:
                return first, last
        if not self._moulds_left:
            return 0, 0
        self._moulds_left -= 1
        event = middle_event(block)
        if _FINISH_START(event) is not None or _first_fact(event) is not None:
            return 0, 0
        if self._mould is not None:
            self._size += self._mould.passed_bytes
        text = next(_TEXT(event), None)
        self._mould = None if text is None else Mould.of(event, text.span(2))
        if self._mould is None:
            return 0, 0
        return (0, len(block)) if len(event) == len(block) else self._mould.quiet(block)

    def _look_at_all(self, block: bytes) -> bytes:
        """As `_look`, with a look at every byte."""
        if _FINISH_START(block) is not None:
            words = [word.decode(errors="replace") for word in _FINISH.findall(block)[-MOST_FINISH_WORDS:]]
            self.finish = (*self.finish, *words)[-MOST_FINISH_WORDS:]
        if not _is_plain(block):
            return self._each(block)
        first = _first_fact(block)
        if first is None:
            return block
        start = event_start(block, first)  # a read may hold a whole stream, whose usage is at its end
        rest = self._each(block[start:])
        return block if len(rest) == len(block) - start else block[:start] + rest

    def _noted(self, out: bytes) -> bytes:
        """*out*, which goes on and so is counted, and kept when it stands at the beginning."""
        if out.find(b"data:") >= 0:  # comments say nothing
            if self._sample.left > 0:
                self._sample.add(out)
            self._size += len(out)
        return out

    def _look_for_model(self, block: bytes) -> None:
        self._reads_for_model -= 1
        found = _MODEL(block)
        if found is not None and found[1]:  # Azure's first chunk says ""
            self._reads_for_model = 0
            self.model = found[1].decode(errors="replace")
            if (named := _ID(block, 0, found.start())) is not None:  # all write it before the model
                self.id = named[1].decode(errors="replace")

    def _each(self, block: bytes) -> bytes:
        """*block* event by event, up to one that ends the stream."""
        kept: list[bytes] = []
        for raw in split_events(block):
            event = parse_event(raw.removeprefix(BOM))
            if is_done(event.data):
                kept.append(raw)
                self.done = self._is_over = True
            elif not event.data.strip():
                if event.is_forwardable:
                    kept.append(raw)
            elif _is_garbage(event.data):
                self.error = UpstreamGarbage("An event of the provider's stream is no JSON object")
                self._is_over = True
            elif not self._is_withheld(event.data):
                kept.append(raw)
            if self._is_over:
                break
        return b"".join(kept)

    def _is_withheld(self, data: bytes) -> bool:
        """Take the facts of an event; whether the client must not see it."""
        if _USAGE(data) is None and _ERROR not in data:
            return False
        self.decoded += 1
        try:
            outline = decode_outline(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return False  # the client's parser will say so
        if (envelope := error_in(outline, data)) is not None:
            self.error = stream_error(self._dialect, envelope, data, outline.error)
            self._is_over = True
            return True
        self.usage = usage_in(outline) or self.usage
        self.model = model_in(outline) or self.model
        return not self._wants_usage and only_tells_usage(outline)


def _is_plain(block: bytes) -> bool:
    """
    Whether *block*, of whole events, is nothing but objects on a line of data each: nearly every read.

    Told by counting, which takes a third of the time of a match: where there are no more line ends than between such
    events and after the last, none is of another form.
    """
    if not block.startswith(b"data: {") or not block.endswith(b"}\n\n") or CR in block:
        return False
    if block.find(b"\n") == len(block) - 2:
        return True
    return block.count(b"\n") == 2 * block.count(b"}\n\ndata: {") + 2


def _is_garbage(data: bytes) -> bool:
    """Whether an event is no object. One that is framed as an object is believed: its JSON is the client's to read."""
    text = data.strip()
    return not (text.startswith(b"{") and text.endswith(b"}"))


def _first_fact(block: bytes) -> int | None:
    """Where the first of what may tell usage or an error stands in a plain block; None when nothing does."""
    usage = _USAGE(block)
    error = block.find(_ERROR)
    if usage is None:
        return error if error >= 0 else None
    return usage.start() if error < 0 else min(error, usage.start())


def only_tells_usage(outline: Outline) -> bool:
    """Whether a chunk has no choice and a usage object: the one that `include_usage` asks for."""
    choices = bytes(outline.choices).translate(None, b" \t\r\n")
    return choices == b"[]" and bytes(outline.usage).startswith(b"{")
