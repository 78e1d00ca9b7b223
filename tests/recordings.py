"""The recorded exchanges of tests/data/recordings, as the bytes that crossed the wire."""

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import attrs

FOLDER = Path(__file__).parent / "data" / "recordings"

# A line with its end; the last one may have none. CRLF before CR, which is a line end by itself.
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")

Headers = tuple[tuple[str, str], ...]

# Which dialect the APIs belong to; Mistral's chat and embeddings share OpenAI's path.
_DIALECTS = {
    "chat": "openai",
    "completions": "openai",
    "embeddings": "openai",
    "responses": "openai-responses",
    "messages": "anthropic",
    "count_tokens": "anthropic",
    "generate": "gemini",
    "streamGenerate": "gemini",
    "countTokens": "gemini",
    "gembed": "gemini",
    "models": "gemini",
}
CHATS = ("chat", "responses", "messages", "generate", "streamGenerate")
"""The protocols of conversations."""


@attrs.frozen
class Recording:
    """
    One exchange with a provider.

    Bodies recorded as parsed JSON are written compactly; a stream is byte for byte the recorded text.
    """

    name: str  # the file's, without ".json"; unique within its provider
    provider: str
    protocol: str
    stream: bool
    request_method: str
    request_path: str  # as the provider has it: not always below /v1
    request_headers: Headers
    request_body: bytes
    response_status: int
    response_headers: Headers
    response_body: bytes

    def __str__(self) -> str:
        return f"{self.provider}/{self.name}"  # the id of a parametrised test

    @property
    def dialect(self) -> str:
        """The dialect of its bytes: openai, openai-responses, anthropic, gemini or mistral."""
        return "mistral" if self.provider == "mistral" else _DIALECTS[self.protocol]

    @property
    def grammar(self) -> str | None:
        """What `check_stream` calls the protocol of the answer; None when the answer is no stream of a conversation."""
        if self.protocol not in CHATS or self.response_status != 200:
            return None
        if self.is_event_stream:
            return self.dialect
        return "gemini-array" if self.protocol == "streamGenerate" else None

    @property
    def fails(self) -> bool:
        """Whether the answer is an error, from its status on or in the middle of its stream."""
        return self.response_status >= 400 or (
            self.is_event_stream and re.search(rb"^event: error\b", self.response_body, re.MULTILINE) is not None
        )

    @property
    def request(self) -> dict[str, Any]:
        """The body of the request."""
        return json.loads(self.request_body) if self.request_body != b"null" else {}

    @property
    def model(self) -> str | None:
        """The model asked for, in the body or in the path; None where no model is."""
        in_path = re.search(r"/models/([^:/?]+)", self.request_path)
        said = self.request.get("model")
        return said if isinstance(said, str) else in_path and in_path[1]

    @property
    def wants_usage(self) -> bool:
        """Whether the client asked for the usage event of a stream."""
        options = self.request.get("stream_options") or {}
        return bool(options.get("include_usage"))

    @property
    def is_event_stream(self) -> bool:
        """Whether the answer is a stream of events: an error answers a streaming request with one body."""
        return any(
            name == "content-type" and value.startswith("text/event-stream") for name, value in self.response_headers
        )


def recordings(
    *,
    provider: str | None = None,
    protocol: str | None = None,
    dialect: str | None = None,
    stream: bool | None = None,
    status: int | None = None,
    fails: bool | None = None,
) -> tuple[Recording, ...]:
    """
    Every recording that is as said, in the order of their names; what is None takes them all.

    *stream*: whether the answer is a stream of events.
    """
    return tuple(
        it
        for it in _all()
        if provider in (None, it.provider)
        and protocol in (None, it.protocol)
        and dialect in (None, it.dialect)
        and stream in (None, it.is_event_stream)
        and status in (None, it.response_status)
        and fails in (None, it.fails)
    )


def openai_recordings(*, protocol: str | None = None) -> tuple[Recording, ...]:
    """What OpenAI and the servers that copy it say to clients of chat, completions and embeddings."""
    return tuple(
        it for it in recordings(dialect="openai", protocol=protocol) if it.provider in ("openai", "compatible")
    )


def recording(name: str) -> Recording:
    """The recording whose full name, or the end of it, is *name*; LookupError unless there is exactly one."""
    found = [each for each in _all() if str(each).endswith(name)]
    if len(found) != 1:
        raise LookupError(f"{len(found)} recordings end with {name!r}")
    return found[0]


@cache
def _all() -> tuple[Recording, ...]:
    return tuple(_read(path) for path in sorted(FOLDER.glob("*/*.json")))


def _read(path: Path) -> Recording:
    case = json.loads(path.read_bytes())
    request, response = case["request"], case["response"]
    return Recording(
        name=path.stem,
        provider=case["provider"],
        protocol=case["protocol"],
        stream=case["stream"],
        request_method=request["method"],
        request_path=request["path"],
        request_headers=tuple(request["headers"].items()),
        request_body=_json_bytes(request["body"]),
        response_status=response["status"],
        response_headers=tuple(response["headers"].items()),
        response_body=_body(response),
    )


def _body(response: Mapping[str, object]) -> bytes:
    """The bytes of the one of `sse`, `text` and `body` that *response* has."""
    for name in ("sse", "text"):
        text = response.get(name)
        if isinstance(text, str):
            return text.encode()
    return _json_bytes(response["body"])


def _json_bytes(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def without_usage_chunk(sse: bytes) -> bytes:
    """
    The stream *sse* less the events that only tell the usage: `choices` is `[]` and `usage` an object.

    Slow and simple on purpose, and shares nothing with our code: it is what that code is compared with.
    Every other byte stays, comments and an incomplete last event included.
    """
    kept, event = [], []
    for line in _LINE.findall(sse):
        event.append(line)
        if not line.strip(b"\r\n"):  # a blank line ends the event
            kept.append(b"" if _only_tells_usage(event) else b"".join(event))
            event = []
    return b"".join([*kept, *event])


def _only_tells_usage(event: list[bytes]) -> bool:
    data = b"\n".join(line.strip(b"\r\n")[5:] for line in event if line.startswith(b"data:"))
    try:
        value = json.loads(data)
    except ValueError:  # no data, [DONE], or what no server should send
        return False
    return isinstance(value, dict) and value.get("choices") == [] and isinstance(value.get("usage"), dict)
