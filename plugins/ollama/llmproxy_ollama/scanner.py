"""A stream that is copied: its first line, its last and an error are looked at, all others pass as bytes."""

import re
from typing import Protocol

from llmproxy_core import UpstreamError, Usage
from llmproxy_core.wire import json_text
from llmproxy_ollama.lines import LineSplitter, lines_of
from llmproxy_ollama.reply import answer, read_finish, read_head, read_usage

_TELLING = re.compile(rb'"(?:done"\s*+:\s*+true|error"\s*+:)')
"""Quotes in what the model says are escaped, so a match is a member."""
_TEXTS = re.compile(rb'"(?:content|thinking)"\s*+:\s*+"([^"\\]*+(?:\\.[^"\\]*+)*+)"')
_SAMPLE_BYTES = 4 << 10


class Counting(Protocol):
    """What of a tokenizer is needed."""

    def count(self, text: str) -> int: ...


class Rough:
    """Four bytes are a token."""

    def count(self, text: str) -> int:
        return -(-len(text.encode(errors="replace")) // 4)


_ROUGH = Rough()


class ChatScanner:
    """See `llmproxy_core.Scanner`. The usage is in the last line, which all clients need: it is never withheld."""

    def __init__(self) -> None:
        self._lines = LineSplitter()
        self._has_begun = False
        self._size = 0
        self._beginning: list[bytes] = []
        self.usage: Usage | None = None
        self.model: str | None = None
        self.id: str | None = None
        self.finish: tuple[str, ...] = ()
        self.done = False
        self.error: UpstreamError | None = None
        self.decoded = 0

    def feed(self, data: bytes) -> bytes:
        """See Scanner. UpstreamGarbage when a line is longer than the bound. Bytes after the end are dropped."""
        return b"" if self._is_over else self._pass(self._lines.feed(data))

    def end(self) -> bytes:
        return b"" if self._is_over else self._pass(self._lines.end())

    def output_tokens(self, tokenizer: Counting = _ROUGH) -> int:
        """See Scanner: what the beginning of the stream says, and as much of the rest by its length."""
        sample = b"".join(self._beginning)
        said = [text for text in _TEXTS.findall(sample) if text]
        if not said:
            return 0
        tokens = max(len(said), tokenizer.count("".join(map(json_text, said))))  # a line is a token at least
        return -(-tokens * self._size // len(sample))

    @property
    def _is_over(self) -> bool:
        return self.done or self.error is not None

    def _pass(self, block: bytes) -> bytes:
        """What of *block*, of whole lines, may go on; what may not is not counted either."""
        if not block:
            return b""
        is_quiet = self._has_begun and _TELLING.search(block) is None and _is_plain(block)
        out = block if is_quiet else self._each(block)
        if self._size < _SAMPLE_BYTES:
            self._beginning.append(out[: _SAMPLE_BYTES - self._size])
        self._size += len(out)
        return out

    def _each(self, block: bytes) -> bytes:
        """*block* line by line, up to one that ends the stream."""
        kept: list[bytes] = []
        for line in lines_of(block):
            if line.strip() and (not self._has_begun or _TELLING.search(line) or not line.startswith(b"{")):
                self._look(line)
            if self.error is not None:
                break
            kept.append(line)
            if self.done:
                break
        return b"".join(kept)

    def _look(self, line: bytes) -> None:
        self.decoded += 1
        try:
            self._note(line)
        except UpstreamError as error:  # the lines before it are the client's
            self.error = error

    def _note(self, line: bytes) -> None:
        members = answer(line)
        if not self._has_begun:
            self._has_begun = True
            self.id, self.model, _ = read_head(members)
        finish = read_finish(members, called=False)
        if finish is not None:
            self.finish = () if finish.word is None else (finish.word,)
            self.usage = read_usage(members)
            self.done = True


def _is_plain(block: bytes) -> bool:
    """Whether each line of *block* begins an object."""
    return block.startswith(b"{") and block.count(b"\n{") == block.count(b"\n") - 1
