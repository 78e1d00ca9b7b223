"""The recorded exchanges of tests/data/recordings, as the bytes that crossed the wire."""

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import attrs

FOLDER = Path(__file__).parent / "data" / "recordings"

# A line with its end; the last one may have none. CRLF before CR, which is a line end by itself.
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")

Headers = tuple[tuple[str, str], ...]


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
    def wants_usage(self) -> bool:
        """Whether the client asked for the usage event of a stream."""
        options = json.loads(self.request_body).get("stream_options") or {}
        return bool(options.get("include_usage"))

    @property
    def is_event_stream(self) -> bool:
        """Whether the answer is a stream of events: an error answers a streaming request with one body."""
        return any(
            name == "content-type" and value.startswith("text/event-stream") for name, value in self.response_headers
        )


def recordings(*, provider: str | None = None, protocol: str | None = None) -> tuple[Recording, ...]:
    """Every recording of *provider* and *protocol*, in the order of their names; None takes them all."""
    return tuple(
        recording
        for recording in _all()
        if provider in (None, recording.provider) and protocol in (None, recording.protocol)
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
