"""A stream of events that is copied as bytes, with a look only at the events that tell something."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from llmproxy_core.errors import UpstreamError, UpstreamGarbage
from llmproxy_core.sse import (
    BOM,
    CR,
    DEFAULT_MAX_EVENT_BYTES,
    Event,
    EventSplitter,
    SSEError,
    parse_event,
    split_events,
)
from llmproxy_core.token_estimate import ROUGH, Tokenizer, estimated_output, estimated_tokens
from llmproxy_core.usage import Usage
from llmproxy_core.wire.last_event import completed
from llmproxy_core.wire.mould import MOST_MOULDS, Mould, middle_event
from llmproxy_core.wire.sample import Sample
from llmproxy_core.wire.splice import json_text


class EventScanner(ABC):
    """
    A Scanner for a protocol of Server-Sent Events: a subclass says which events tell something, and takes it.

    An event is decoded only when *telling* matches its bytes; all others are copied as they came, and where only their
    text is new not even searched, nor fed (unless the subclass has a `feed` of its own). A block without data that is
    no comment is left out, for clients choke on it.
    """

    telling: ClassVar[re.Pattern[bytes]]
    """Matches somewhere in every event that `note` must see; best in few others."""
    texts: ClassVar[re.Pattern[bytes]]
    """
    Finds what is said, as JSON text without its quotes in group 1: to know when a stream begins to answer, and to
    estimate the tokens of one that breaks.

    Whether an event tells something must not depend on that: of events that are the same but for it, one is searched.
    """

    max_event_bytes: ClassVar[int] = DEFAULT_MAX_EVENT_BYTES
    """The longest event."""

    def __init__(self) -> None:
        self._splitter = EventSplitter(self.max_event_bytes)
        self._is_over = False
        self._mould: Mould | None = None
        # No mould where a subclass looks at each read itself.
        self._moulds_left = MOST_MOULDS if type(self).feed is EventScanner.feed else 0
        self._size = 0  # without what the mould has passed
        self._sample = Sample()
        self.usage: Usage | None = None
        self.model: str | None = None
        self.id: str | None = None
        self.finish: tuple[str, ...] = ()
        self.done = False
        self.error: UpstreamError | None = None
        self.decoded = 0

    @abstractmethod
    def note(self, event: Event) -> None:
        """Take what *event* tells: *usage*, *model*, *id*, *finish*, *error*; *done* for the terminal event."""

    def withholds(self, event: Event) -> bool:
        """Whether the client must not see *event*, which `note` has just seen."""
        return False

    def ended(self) -> None:
        """The body is over: a protocol without a terminal event says here whether the answer is complete."""
        return

    def feed(self, data: bytes) -> bytes:
        """See Scanner. UpstreamGarbage when an event is longer than the bound. Bytes after the end are dropped."""
        if self._is_over:
            return b""
        mould = self._mould
        if mould is not None and not self._splitter.held and mould.fits(data):
            if self._sample.left > 0:
                self._sample.add(data, mould)
            return data
        try:
            block = self._splitter.feed(data)
        except SSEError as error:
            self._is_over = True
            raise UpstreamGarbage("An event of the provider's stream is too long") from error
        return self._pass(block) if block else b""

    @property
    def passes(self) -> Callable[[bytes, bytes], bool] | None:
        """See QuickScanner: most reads are one event of the mould."""
        mould = self._mould
        if mould is None or self._splitter.held or self._is_over:
            return None
        return self._sample.watched(mould)

    def end(self) -> bytes:
        """See Scanner."""
        if self._is_over:
            return b""
        whole = completed(self._splitter.end())
        out = self._pass(whole) if whole else b""
        if not self._is_over:
            self.ended()
        return out

    def output_tokens(self, tokenizer: Tokenizer = ROUGH) -> int:
        """See Scanner: what the beginning of the stream says, and as much of the rest by its length."""
        sample = self._sample.data
        said = [text for text in self.texts.findall(sample) if text]
        size = self._size if self._mould is None else self._size + self._mould.passed_bytes
        if not said:
            return 0 if size == len(sample) else estimated_tokens(size)
        tokens = estimated_output(tokenizer.count("".join(map(json_text, said))), len(said), 0)
        return -(-tokens * size // len(sample))

    def _pass(self, block: bytes) -> bytes:
        """What of *block*, of whole events, may go on; what may not is not counted either."""
        out = block if self._tells_nothing(block) else self._each(block)
        if out.find(b"data:") >= 0:  # comments say nothing
            if self._sample.left > 0:
                self._sample.add(out)
            self._size += len(out)
        return out

    def _each(self, block: bytes) -> bytes:
        """*block* event by event, up to one that ends the stream."""
        kept: list[bytes] = []
        for raw in split_events(block):
            event = parse_event(raw.removeprefix(BOM))
            if not event.data.strip():
                if event.is_forwardable:
                    kept.append(raw)
                continue
            if self.telling.search(raw) is not None:
                self.decoded += 1
                self.note(event)
                if self.withholds(event):
                    continue
            elif not _is_framed(event.data):
                self.error = UpstreamGarbage("An event of the provider's stream is no JSON object")
            if self.error is not None:
                self._is_over = True
                break
            kept.append(raw)
            if self.done:
                self._is_over = True
                break
        return block if kept and sum(map(len, kept)) == len(block) else b"".join(kept)

    def _tells_nothing(self, block: bytes) -> bool:
        """Whether *block* is to go on as it is."""
        if self._mould is not None and self._mould.quiet(block) == (0, len(block)):
            return True
        if self.telling.search(block) is not None or not _is_plain(block):
            return False
        if self._moulds_left:
            self._take_mould(middle_event(block))
        return True

    def _take_mould(self, event: bytes) -> None:
        """Have events like *event*, which tells nothing, pass from now on."""
        text = self.texts.search(event)
        if text is None:
            return
        self._moulds_left -= 1
        mould = Mould.of(event, text.span(1))
        if mould is not None:
            if self._mould is not None:
                self._size += self._mould.passed_bytes
            self._mould = mould


def _is_framed(data: bytes) -> bool:
    """Whether an event looks like an object: what stands inside the braces is the client's to read."""
    text = data.strip()
    return text.startswith(b"{") and text.endswith(b"}")


_OBJECT = (b"data: {", b"data:{")
_PLAIN = re.compile(rb"(?:(?:(?:event|id):[^\r\n]*+\r?\n)*+data: ?\{[^\r\n]*+(?<=\})(?:\n\n|\r\n\r\n))*+").fullmatch


def _is_plain(block: bytes) -> bool:
    """Whether nothing in *block*, of whole events, may be left out: each is an object on one line, perhaps named."""
    if CR not in block and block.endswith(b"}\n\n"):
        first = block.find(b"\n") + 1 if block.startswith(b"event:") else 0
        if block.startswith(_OBJECT, first) and block.find(b"\n", first) == len(block) - 2:  # one: nearly every read
            return True
        if _are_plain(block):
            return True
    return _PLAIN(block) is not None


def _are_plain(block: bytes) -> bool:
    """
    Whether *block* is nothing but events of the one form, or of the other, that nearly all servers write.

    Told by counting, which takes half of the time of a match: where there are no more line ends than in such events,
    none is of another form.
    """
    lines = block.count(b"\n")
    if block.startswith(b"data: {"):
        return lines == 2 * block.count(b"}\n\ndata: {") + 2
    events = block.count(b"}\n\nevent: ") + 1
    return block.startswith(b"event: ") and lines == 3 * events and block.count(b"\ndata: {") == events
