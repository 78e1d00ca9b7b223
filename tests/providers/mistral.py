"""A fake of Mistral's API: chat completions with its own rules, embeddings, models."""

import re
from typing import ClassVar

from tests.providers.chat_answer import finish
from tests.providers.chat_request import ChatRules, read_chat
from tests.providers.refusal import JSON, Kind, Refusal, check, is_text, members, names, within
from tests.providers.scenario import VECTOR, Asked, Spent, Turn, pieces
from tests.providers.server import Act, Answer, FakeProvider, Plain, Received, Stream, broken_off, event
from tests.providers.turn import turn

MODELS = ("mistral-large-latest", "magistral-medium-latest", "mistral-embed")
RULES = ChatRules(
    fields=names(
        "frequency_penalty guardrails logprobs max_tokens metadata n parallel_tool_calls prediction "
        "presence_penalty prompt_cache_key prompt_mode random_seed reasoning_effort repetition_penalty "
        "response_format safe_prompt service_tier stop stream temperature tool_choice tools top_k "
        "top_logprobs top_p"
    ),
    roles={
        "system": frozenset({"content"}),
        "user": frozenset({"content"}),
        "assistant": frozenset({"content", "tool_calls", "prefix"}),
        "tool": frozenset({"content", "tool_call_id", "name"}),
    },
    parts=frozenset({"text", "image_url", "thinking"}),
    call_id=re.compile(r"[A-Za-z0-9]{9}"),
    temperature=1.5,
    tool_choices=frozenset({"auto", "none", "any", "required"}),
)
STATUSES: dict[Kind, int] = {
    "invalid": 422,
    "auth": 401,
    "model": 400,
    "rate_limit": 429,
    "server": 500,
    "overloaded": 503,
}
WORDS: dict[Kind, tuple[str, str | None]] = {
    "invalid": ("invalid_request_error", None),
    "model": ("invalid_model", "1500"),
    "rate_limit": ("rate_limited", "1300"),
    "server": ("internal_server_error", "1000"),
    "overloaded": ("service_unavailable", "1000"),
}
IDS = ("fakeCall0", "fakeCall1")


class Mistral(FakeProvider):
    """`/v1/chat/completions`, `/v1/embeddings` and `/v1/models`."""

    name: ClassVar[str] = "mistral"

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
            raise Refusal("auth", "Invalid API Key")

    def error(self, refusal: Refusal) -> Plain:
        status = STATUSES[refusal.kind]
        if refusal.kind == "auth":
            return Plain({"detail": refusal.message}, status)
        message: object = refusal.message
        if refusal.kind == "invalid":
            message = {"detail": [{"type": "invalid", "loc": ["body"], "msg": refusal.message, "input": None}]}
        kind, code = WORDS[refusal.kind]
        return Plain({"object": "error", "message": message, "type": kind, "param": None, "code": code}, status)

    def chat(self, received: Received) -> Answer:
        """Chat completions."""
        body = received.json
        asked = read_chat(body, RULES)
        last = body["messages"][-1]
        check(last["role"] in ("user", "tool") or last.get("prefix"), "Expected last role User or Tool")
        within(body, "random_seed", 0, 2**63)
        asked.thinks = asked.model.startswith("magistral") or body.get("reasoning_effort") not in (None, "none")
        said = turn(asked)
        if not asked.stream:
            return Plain(self._completion(asked, said))
        return self._stream(asked, said)

    def _completion(self, asked: Asked, said: Turn) -> JSON:
        content: object = said.text
        if said.thought:
            thought = {"type": "thinking", "thinking": [{"type": "text", "text": said.thought}]}
            content = [thought, *([{"type": "text", "text": said.text}] if said.text else [])]
        calls = [self._call(index, said) for index in range(len(said.calls))]
        message = {"role": "assistant", "tool_calls": calls or None, "content": content}
        return {
            "id": "9f9d90210f194076abeee223863eaaf0",
            "object": "chat.completion",
            "created": 1764296393,
            "model": asked.model,
            "choices": [{"index": 0, "finish_reason": finish(said), "message": message}],
            "usage": usage(said.spent),
        }

    def _call(self, index: int, said: Turn) -> JSON:
        call = said.calls[index]
        return {"id": IDS[index], "function": {"name": call.name, "arguments": call.text}, "index": index}

    def _stream(self, asked: Asked, said: Turn) -> Stream:
        def chunk(delta: JSON, reason: str | None = None, **more: object) -> bytes:
            head = {"id": "9f9d90210f194076abeee223863eaaf0", "object": "chat.completion.chunk"}
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            return event({**head, "created": 1764296393, "model": asked.model, "choices": [choice], **more, "p": "abc"})

        def thought(piece: str) -> JSON:
            return {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": piece}]}]}

        begin = [chunk({"role": "assistant", "content": ""})]
        begin += [chunk(thought(piece)) for piece in pieces(said.thought, 13)]
        text = [chunk({"content": piece}) for piece in said.pieces]
        if said.breaks:
            failure = {"object": "error", "message": "Service unavailable", "type": "internal_server_error"}
            return broken_off(begin, text, event({**failure, "param": None, "code": "1000"}), said.breaks)
        # The usage comes with the reason, and so do the calls, whole.
        last: JSON = {"content": ""}
        if said.calls:
            last["tool_calls"] = [self._call(index, said) for index in range(len(said.calls))]
        end = chunk(last, finish(said), usage=usage(said.spent))
        return Stream([*begin, *text, end, b"data: [DONE]\n\n"])

    def embed(self, received: Received) -> Answer:
        """Embeddings."""
        optional = ("encoding_format", "metadata", "output_dimension", "output_dtype")
        body = members(received.json, "body", ("model", "input"), optional)
        check(body.get("encoding_format") in (None, "float"), "encoding_format: this fake writes floats")
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        data = [
            {"object": "embedding", "index": index, "embedding": list(VECTOR)}
            for index, text in enumerate(texts)
            if is_text(text, "input")
        ]
        spent = {"prompt_tokens": 5, "total_tokens": 5, "completion_tokens": 0}
        head = {"id": "cc93a06d10244e07a4b2604c20855c61", "object": "list", "data": data}
        return Plain({**head, "model": body["model"], "usage": spent})

    def models(self, received: Received) -> Answer:
        """All models, or the one that is named."""
        known = [_model(name) for name in MODELS]
        name = received.path.removeprefix("/v1/models").removeprefix("/")
        if not name:
            return Plain({"object": "list", "data": known})
        for model in known:
            if model["id"] == name:
                return Plain(model)
        raise Refusal("model", f"Invalid model: {name}")


def _model(name: str) -> JSON:
    can = {"completion_chat": True, "completion_fim": False, "function_calling": True, "fine_tuning": False}
    head = {"id": name, "object": "model", "created": 1764296393, "owned_by": "mistralai"}
    more = {"capabilities": {**can, "vision": True}, "name": name, "max_context_length": 131072, "aliases": []}
    return {**head, **more, "type": "base"}


def usage(spent: Spent) -> JSON:
    """*spent* as Mistral tells it: reasoning is not told apart."""
    return {
        "prompt_tokens": spent.input,
        "total_tokens": spent.input + spent.output,
        "completion_tokens": spent.output,
        "num_cached_tokens": spent.cached,
        "prompt_tokens_details": {"cached_tokens": spent.cached},
    }
