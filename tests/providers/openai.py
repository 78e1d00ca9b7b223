"""A fake of OpenAI's API for chat completions, embeddings and models."""

import base64
import re
import struct
from typing import ClassVar

from tests.providers.chat_answer import finish, usage
from tests.providers.chat_request import ChatRules, read_chat
from tests.providers.refusal import JSON, Kind, Refusal, check, is_text, members, names
from tests.providers.scenario import VECTOR, Asked, ToolCall, Turn, pieces
from tests.providers.server import Act, Answer, FakeProvider, Plain, Received, Stream, broken_off, event
from tests.providers.turn import turn

MODELS = ("gpt-4.1", "o4-mini", "text-embedding-3-small")
ERRORS: dict[Kind, tuple[int, str, str | None]] = {
    "invalid": (400, "invalid_request_error", None),
    "auth": (401, "invalid_request_error", "invalid_api_key"),
    "model": (404, "invalid_request_error", "model_not_found"),
    "rate_limit": (429, "requests", "rate_limit_exceeded"),
    "server": (500, "server_error", None),
    "overloaded": (503, "server_error", "server_is_overloaded"),
}
RULES = ChatRules(
    fields=names(
        "audio frequency_penalty logit_bias logprobs max_completion_tokens max_tokens metadata modalities n "
        "parallel_tool_calls prediction presence_penalty prompt_cache_key prompt_cache_retention "
        "reasoning_effort response_format safety_identifier seed service_tier stop store stream "
        "stream_options temperature tool_choice tools top_logprobs top_p user verbosity"
    ),
    roles={
        "system": frozenset({"content", "name"}),
        "developer": frozenset({"content", "name"}),
        "user": frozenset({"content", "name"}),
        # What answers have, and clients send back.
        "assistant": frozenset({"content", "name", "tool_calls", "refusal", "audio", "annotations"}),
        "tool": frozenset({"content", "tool_call_id"}),
    },
    parts=frozenset({"text", "image_url"}),
    call_id=re.compile(r"call_[A-Za-z0-9]{1,35}"),
    temperature=2,
    tool_choices=frozenset({"auto", "none", "required"}),
    takes_custom_tools=True,
)


def is_reasoning(model: str) -> bool:
    """Whether *model* thinks, and takes no `max_tokens`, as the names of OpenAI's models tell."""
    return model.startswith(("o1", "o3", "o4", "gpt-5"))


def _called(call: ToolCall, text: str) -> JSON:
    if call.free is not None:
        return {"type": "custom", "custom": {"name": call.name, "input": text}}
    return {"type": "function", "function": {"name": call.name, "arguments": text}}


class OpenAI(FakeProvider):
    """`/v1/chat/completions`, `/v1/embeddings` and `/v1/models`."""

    name: ClassVar[str] = "openai"
    root: ClassVar[str] = "/v1"

    def find(self, received: Received) -> Act | None:
        match received.method, received.path:
            case "POST", "/v1/chat/completions":
                return self.chat
            case "POST", "/v1/embeddings":
                return self.embed
            case "GET", path if path == "/v1/models" or path.startswith("/v1/models/"):
                return self.models
            case _:
                return None

    def check_caller(self, received: Received) -> None:
        if received.headers.get("authorization") != f"Bearer {self.key}":
            raise Refusal("auth", "Incorrect API key provided: sk-wrong.")
        check("x-api-key" not in received.headers, "header x-api-key: not of this protocol")

    def error(self, refusal: Refusal) -> Plain:
        status, kind, code = ERRORS[refusal.kind]
        return Plain({"error": {"message": refusal.message, "type": kind, "param": None, "code": code}}, status)

    def chat(self, received: Received) -> Answer:
        """Chat completions."""
        body = received.json
        asked = read_chat(body, RULES)
        thinks = is_reasoning(asked.model)
        if thinks:
            check("max_tokens" not in body, "Unsupported parameter: 'max_tokens' is not supported with this model.")
            check(body.get("temperature") in (None, 1), "Unsupported value: 'temperature' with this model.")
        check(thinks or "reasoning_effort" not in body, "Unrecognized request argument supplied: reasoning_effort")
        asked.thinks = thinks
        said = turn(asked, must_return_thoughts=False)
        if not asked.stream:
            return Plain(self._completion(asked, said))
        options = body.get("stream_options") or {}
        return self._stream(asked, said, with_usage=bool(options.get("include_usage")))

    def _completion(self, asked: Asked, said: Turn) -> JSON:
        message: JSON = {"role": "assistant", "content": said.text or None, "refusal": None, "annotations": []}
        if said.calls:
            message["tool_calls"] = [
                {"id": f"call_fake{index}", **_called(call, call.text)} for index, call in enumerate(said.calls)
            ]
        return {
            "id": "chatcmpl-fake1",
            "object": "chat.completion",
            "created": 1755137921,
            "model": asked.model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish(said)}],
            "usage": usage(said.spent),
            "service_tier": "default",
            "system_fingerprint": "fp_fake",
        }

    def _stream(self, asked: Asked, said: Turn, *, with_usage: bool) -> Stream:
        def chunk(choices: list[JSON], **more: object) -> bytes:
            head = {"id": "chatcmpl-fake1", "object": "chat.completion.chunk", "created": 1755137921}
            middle = {"model": asked.model, "service_tier": "default", "system_fingerprint": "fp_fake"}
            rest = {"usage": None, **more} if with_usage else {}
            return event({**head, **middle, "choices": choices, **rest, "obfuscation": "wX3"})

        def delta(value: JSON, reason: str | None = None) -> bytes:
            return chunk([{"index": 0, "delta": value, "logprobs": None, "finish_reason": reason}])

        first = {"role": "assistant", "content": None if said.calls else "", "refusal": None}
        text = [delta({"content": piece}) for piece in said.pieces]
        if said.breaks:
            failure = {"message": "The server had an error.", "type": "server_error", "param": None, "code": None}
            return broken_off([delta(first)], text, event({"error": failure}), said.breaks)
        calls = []
        for index, call in enumerate(said.calls):
            head = {"index": index, "id": f"call_fake{index}", **_called(call, "")}
            calls.append(delta({"tool_calls": [head]}))
            kind, said_in = ("function", "arguments") if call.free is None else ("custom", "input")
            calls += [
                delta({"tool_calls": [{"index": index, kind: {said_in: piece}}]}) for piece in pieces(call.text, 11)
            ]
        last = [chunk([], usage=usage(said.spent))] if with_usage else []
        return Stream([delta(first), *text, *calls, delta({}, finish(said)), *last, b"data: [DONE]\n\n"])

    def embed(self, received: Received) -> Answer:
        """Embeddings: every text has the same vector, times its place."""
        body = members(received.json, "body", ("model", "input"), ("dimensions", "encoding_format", "user"))
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        data = []
        for index, text in enumerate(texts):
            is_text(text, f"input[{index}]")
            vector: object = list(VECTOR)
            if body.get("encoding_format") == "base64":
                vector = base64.b64encode(struct.pack(f"<{len(VECTOR)}f", *VECTOR)).decode()
            data.append({"object": "embedding", "index": index, "embedding": vector})
        spent = {"prompt_tokens": 5, "total_tokens": 5}
        return Plain({"object": "list", "data": data, "model": body["model"], "usage": spent})

    def models(self, received: Received) -> Answer:
        """All models, or the one that is named."""
        known = [{"id": each, "object": "model", "created": 1755137921, "owned_by": "fake"} for each in MODELS]
        name = received.path.removeprefix("/v1/models").removeprefix("/")
        if not name:
            return Plain({"object": "list", "data": known})
        for model in known:
            if model["id"] == name:
                return Plain(model)
        raise Refusal("model", f"The model '{name}' does not exist")
