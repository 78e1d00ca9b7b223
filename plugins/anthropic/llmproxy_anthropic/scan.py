"""A stream that is copied as bytes, watched as cheaply as the protocol allows."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from llmproxy_anthropic.reply import decode_outline, error_in, text_in
from llmproxy_anthropic.usage import at_start, counted, merged, read_members
from llmproxy_core import MOST_FINISH_WORDS
from llmproxy_core.wire import Event, EventScanner


class _Delta(msgspec.Struct):
    stop_reason: msgspec.Raw = msgspec.Raw()


class _Telling(msgspec.Struct):
    """An event that tells something."""

    type: str = ""
    message: msgspec.Raw = msgspec.Raw()
    delta: _Delta | None = None
    usage: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(_Telling).decode


class MessageScanner(EventScanner):
    """A Scanner for the streams of `POST /messages`, which always tell their usage."""

    # Quotes inside a JSON string are escaped, so neither can match in what the model says.
    telling = re.compile(rb'"type"\s*:\s*"(?:message_(?:start|delta|stop)|error)"')
    texts = re.compile(rb'"(?:text|thinking|partial_json)"\s*:\s*"([^"\\]*+(?:\\.[^"\\]*+)*+)"')

    def __init__(self) -> None:
        super().__init__()
        self._usage: dict[str, Any] = {}

    def note(self, event: Event) -> None:
        """See EventScanner."""
        try:
            told = _decode(event.data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return  # the client's parser will say so
        match told.type:
            case "message_start":
                self._begin(bytes(told.message))
            case "message_delta":
                self._usage = merged(self._usage, read_members(bytes(told.usage)))
                self.usage = counted(self._usage) or self.usage
                word = None if told.delta is None else text_in(told.delta.stop_reason)
                if word is not None:
                    self.finish = (*self.finish, word)[-MOST_FINISH_WORDS:]
            case "message_stop":
                self.done = True
            case "error":
                self.error = error_in(event.data)
            case _:
                pass

    def _begin(self, message: bytes) -> None:
        try:
            outline = decode_outline(message)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        self.model, self.id = text_in(outline.model), text_in(outline.id)
        self._usage = at_start(read_members(bytes(outline.usage)))
        self.usage = counted(self._usage)
