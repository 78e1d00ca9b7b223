"""A stream that is copied as bytes."""

from __future__ import annotations

import re
from typing import ClassVar

import msgspec

from llmproxy_core.errors import UpstreamGarbage
from llmproxy_core.sse import BOM, Event, parse_event, split_events
from llmproxy_core.token_estimate import ROUGH, Tokenizer, estimated_output
from llmproxy_core.wire import EventScanner
from llmproxy_core.wire.splice import json_text
from llmproxy_openai.responses.failure import stream_error
from llmproxy_openai.responses.finish import finish_word
from llmproxy_openai.responses.reply import Outline, read_spent
from llmproxy_openai.responses.stream_event import TERMINAL, StreamEvent, is_error, read_event
from llmproxy_openai.responses.usage import read_usage

_decode = msgspec.json.Decoder(Outline).decode
_PIECE = b'"delta"'
_SAMPLE_BYTES = 4 << 10


class ResponseScanner(EventScanner):
    """
    Decodes the first event and the last; remembers what an event that tells of a failure must go on from.

    An `error` is held back: the `response.failed` that comes after it belongs to it.
    """

    telling: ClassVar[re.Pattern[bytes]] = re.compile(
        rb'"type"\s*:\s*"(?:response\.(?:created|completed|incomplete|failed|cancelled)|error)"|"error"\s*:\s*[{"]'
    )
    texts: ClassVar[re.Pattern[bytes]] = re.compile(rb'"delta"\s*:\s*"([^"\\]*+(?:\\.[^"\\]*+)*+)"')

    def __init__(self) -> None:
        super().__init__()
        self._pending: bytes | None = None
        self._tail = b""
        self._pieces = 0
        self._spoken: list[bytes] = []
        self._spoken_size = 0
        self.response: bytes | None = None
        """The response as it began; None while nothing was sent."""

    @property
    def sequence(self) -> int:
        """The number of the next event."""
        *_, last = [b"", *split_events(self._tail)]
        try:
            number = read_event(parse_event(last.removeprefix(BOM)).data).sequence_number
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            number = None
        return 0 if number is None else number + 1

    def feed(self, data: bytes) -> bytes:
        """See Scanner."""
        return self._noted(super().feed(data))

    def end(self) -> bytes:
        """See Scanner."""
        return self._noted(super().end())

    def _noted(self, block: bytes) -> bytes:
        if b"data:" in block:
            self._tail = block
        if pieces := block.count(_PIECE):
            self._pieces += pieces
            if self._spoken_size < _SAMPLE_BYTES:
                self._spoken.append(block)
                self._spoken_size += len(block)
        return block

    def output_tokens(self, tokenizer: Tokenizer = ROUGH) -> int:
        """See Scanner: the first pieces tell how many tokens one has; what is encrypted, or told again, is none."""
        said = self.texts.findall(b"".join(self._spoken))
        if not said:
            return 0
        tokens = estimated_output(tokenizer.count("".join(map(json_text, said))), len(said), 0)
        return -(-tokens * self._pieces // len(said))

    def ended(self) -> None:
        """An error after which nothing came is one too."""
        if self._pending is not None:
            self.error = stream_error([self._pending])

    def note(self, event: Event) -> None:
        """See EventScanner."""
        try:
            source = read_event(event.data)
            if source.type in {"response.created", *TERMINAL} - {"response.failed"}:
                self._note_response(source, bytes(source.response))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self.error = UpstreamGarbage("An event of the provider's stream cannot be understood")
            return
        if source.type == "response.failed":
            before = [] if self._pending is None else [self._pending]
            self.error = stream_error([*before, event.data])
            self.usage = read_spent(bytes(source.response))
        elif is_error(source):
            self._pending = event.data

    def withholds(self, event: Event) -> bool:
        """Whether *event* is kept from the client, for now."""
        return self._pending is event.data

    def _note_response(self, source: StreamEvent, response: bytes) -> None:
        facts = _decode(response)
        self.model, self.id = facts.model or self.model, facts.id or self.id
        if source.type == "response.created":
            self.response = response
            return
        self.done = True
        word = finish_word(facts.status, facts.reason)
        self.finish = self.finish if word is None else (word,)
        self.usage = read_usage(bytes(facts.usage), facts.service_tier)
