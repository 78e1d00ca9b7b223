"""A fake of Anthropic's API: messages, the counting of their tokens, models."""

import json
from typing import ClassVar

from tests.providers.anthropic_request import SIGNATURE, VERSIONS, has_budget, read_count, read_messages
from tests.providers.refusal import JSON, Kind, Refusal, check
from tests.providers.scenario import COUNTED, MISSING_MODEL, Asked, Spent, Turn, pieces
from tests.providers.server import Act, Answer, FakeProvider, Plain, Received, Stream, broken_off, event
from tests.providers.turn import turn

MODELS = ("claude-sonnet-4-6",)
ERRORS: dict[Kind, tuple[int, str]] = {
    "invalid": (400, "invalid_request_error"),
    "auth": (401, "authentication_error"),
    "model": (404, "not_found_error"),
    "rate_limit": (429, "rate_limit_error"),
    "server": (500, "api_error"),
    "overloaded": (529, "overloaded_error"),
}


class Anthropic(FakeProvider):
    """`/v1/messages`, `/v1/messages/count_tokens` and `/v1/models`."""

    name: ClassVar[str] = "anthropic"

    def find(self, received: Received) -> Act | None:
        match received.method, received.path:
            case "POST", "/v1/messages":
                return self.messages
            case "POST", "/v1/messages/count_tokens":
                return self.count
            case "GET", path if path == "/v1/models" or path.startswith("/v1/models/"):
                return self.models
            case _:
                return None

    def check_caller(self, received: Received) -> None:
        keys = [received.headers.get("x-api-key"), received.headers.get("authorization")]
        if keys not in ([self.key, None], [None, f"Bearer {self.key}"]):
            raise Refusal("auth", "invalid x-api-key")
        version = received.headers.get("anthropic-version")
        check(version in VERSIONS, f"anthropic-version: {version!r} is not a valid version")

    def error(self, refusal: Refusal) -> Plain:
        status, kind = ERRORS[refusal.kind]
        error = {"type": kind, "message": refusal.message}
        envelope = {"type": "error", "error": error, "request_id": "req_fake1"}
        return Plain(envelope, status, [("request-id", "req_fake1")])

    def messages(self, received: Received) -> Answer:
        """Messages, plain and streamed."""
        body = received.json
        asked = read_messages(body, received.headers["anthropic-version"])
        said = turn(asked, must_return_thoughts=has_budget(body))
        if asked.stream:
            return self._stream(asked, said)
        message = {**_message(asked, said.spent), "content": _blocks(said), "stop_reason": _stop(said)}
        return Plain(message, headers=[("request-id", "req_fake1")])

    def count(self, received: Received) -> Answer:
        """The tokens of a request."""
        asked = read_count(received.json)
        if asked.model == MISSING_MODEL:
            raise Refusal("model", f"model: {asked.model}")
        return Plain({"input_tokens": COUNTED})

    def _stream(self, asked: Asked, said: Turn) -> Stream:
        begin = [
            event({"type": "message_start", "message": _message(asked, Spent(output=1))}, "message_start"),
            event({"type": "ping"}, "ping"),
        ]
        events: list[bytes] = []
        for index, block in enumerate(_blocks(said)):
            events += _streamed(index, block)
        if said.breaks:
            failure = {"type": "error", "error": {"details": None, "type": "overloaded_error", "message": "Overloaded"}}
            return broken_off(begin, events, event({**failure, "request_id": "req_fake1"}, "error"), said.breaks)
        last = {
            "type": "message_delta",
            "delta": {"stop_reason": _stop(said), "stop_sequence": None},
            "usage": {"output_tokens": said.spent.output},
        }
        end = [event(last, "message_delta"), event({"type": "message_stop"}, "message_stop")]
        return Stream([*begin, *events, *end])

    def models(self, received: Received) -> Answer:
        """All models, or the one that is named."""
        known = [_model(name) for name in MODELS]
        name = received.path.removeprefix("/v1/models").removeprefix("/")
        if not name:
            return Plain({"data": known, "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]})
        for model in known:
            if model["id"] == name:
                return Plain(model)
        raise Refusal("model", f"model: {name}")


def _model(name: str) -> JSON:
    head = {"type": "model", "id": name, "display_name": "Claude", "created_at": "2025-09-29T00:00:00Z"}
    return {**head, "max_input_tokens": 200000, "max_tokens": 64000}


def _message(asked: Asked, spent: Spent) -> JSON:
    usage = {
        "input_tokens": spent.input - spent.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": spent.cached,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": spent.output,
        "service_tier": "standard",
    }
    head = {"model": asked.model, "id": "msg_fake1", "type": "message", "role": "assistant", "content": []}
    return {**head, "stop_reason": None, "stop_sequence": None, "usage": usage}


def _stop(said: Turn) -> str:
    return "tool_use" if said.calls else "end_turn"


def _blocks(said: Turn) -> list[JSON]:
    blocks: list[JSON] = []
    if said.thought:
        blocks.append({"type": "thinking", "thinking": said.thought, "signature": SIGNATURE})
    if said.text:
        blocks.append({"type": "text", "text": said.text})
    for index, call in enumerate(said.calls):
        blocks.append({"type": "tool_use", "id": f"toolu_fake{index}", "name": call.name, "input": call.arguments})
    return blocks


def _streamed(index: int, block: JSON) -> list[bytes]:
    """The events of *block*: it starts empty, grows, and stops."""
    empty: JSON
    match block["type"]:
        case "thinking":
            empty = {"thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"], 13)]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        case "text":
            empty = {"text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in pieces(block["text"])]
        case _:
            empty = {"input": {}}
            text = json.dumps(block["input"], ensure_ascii=False)
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *pieces(text, 11))]
    start = {"type": "content_block_start", "index": index, "content_block": {**block, **empty}}
    grown = [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
    stop = {"type": "content_block_stop", "index": index}
    return [event(value, str(value["type"])) for value in (start, *grown, stop)]
