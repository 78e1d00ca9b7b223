"""A fake of Gemini's API: generateContent, plain, as SSE and as an array; counts, embeddings, models."""

import re
from typing import ClassVar

from tests.providers.gemini_request import SIGNATURE, camel, read_generate
from tests.providers.refusal import JSON, Kind, Refusal, check, encoded, is_list, is_text, members
from tests.providers.scenario import COUNTED, MISSING_MODEL, VECTOR, Asked, Spent, Turn, pieces
from tests.providers.server import Act, Answer, FakeProvider, Plain, Received, Stream, broken_off, event
from tests.providers.turn import turn

MODELS = ("gemini-2.5-flash", "gemini-3-pro-preview", "gemini-embedding-001")
ERRORS: dict[Kind, tuple[int, str]] = {
    "invalid": (400, "INVALID_ARGUMENT"),
    "auth": (400, "INVALID_ARGUMENT"),
    "model": (404, "NOT_FOUND"),
    "rate_limit": (429, "RESOURCE_EXHAUSTED"),
    "server": (500, "INTERNAL"),
    "overloaded": (503, "UNAVAILABLE"),
}
CALL = re.compile(r"/v1(?:beta)?/models/([^:]+):(\w+)")
LIST = re.compile(r"/v1(?:beta)?/models(?:/([^:]+))?")
RPC = "type.googleapis.com/google.rpc."


class Gemini(FakeProvider):
    """`/v1beta/models/MODEL:VERB`, also below `/v1`, and the list of models."""

    name: ClassVar[str] = "gemini"
    says_retry_after: ClassVar[bool] = False

    def find(self, received: Received) -> Act | None:
        if received.method == "GET" and LIST.fullmatch(received.path):
            return self.models
        found = CALL.fullmatch(received.path)
        if found is None or received.method != "POST":
            return None
        acts = {
            "generateContent": self.generate,
            "streamGenerateContent": self.generate,
            "countTokens": self.count,
            "embedContent": self.embed,
            "batchEmbedContents": self.embed_all,
        }
        return acts.get(found[2])

    def check_caller(self, received: Received) -> None:
        if received.headers.get("x-goog-api-key") != self.key:
            raise Refusal("auth", "API key not valid. Please pass a valid API key.")
        check("authorization" not in received.headers, "authorization: not with an API key")

    def error(self, refusal: Refusal) -> Plain:
        status, word = ERRORS[refusal.kind]
        error: JSON = {"code": status, "message": refusal.message, "status": word}
        if refusal.kind == "auth":
            info = {"@type": f"{RPC}ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}
            error["details"] = [info]
        if refusal.kind == "rate_limit":
            error["details"] = [{"@type": f"{RPC}QuotaFailure"}, {"@type": f"{RPC}RetryInfo", "retryDelay": "6.4s"}]
        return Plain({"error": error}, status)

    def generate(self, received: Received) -> Answer:
        """An answer, whole or in pieces."""
        found = CALL.fullmatch(received.path)
        assert found
        asked = read_generate(received.json, found[1])
        said = turn(asked, must_return_thoughts=asked.model.startswith("gemini-3"))
        asked.stream = found[2] == "streamGenerateContent"
        if not asked.stream:
            return Plain(_chunk(asked, _parts(said), said.spent, is_last=True))
        return self._stream(asked, said, is_sse=received.query.get("alt") == "sse")

    def _stream(self, asked: Asked, said: Turn, *, is_sse: bool) -> Stream:
        thoughts = [{"text": piece, "thought": True} for piece in pieces(said.thought, 13)]
        texts: list[JSON] = [{"text": piece} for piece in said.pieces]
        parts = [*thoughts, *texts]
        if said.thought and said.text:
            parts.append({"text": "", "thoughtSignature": SIGNATURE})
        chunks = [_chunk(asked, [part], said.spent) for part in parts]
        if said.calls:
            chunks.append(_chunk(asked, _call_parts(said), said.spent))
        chunks[-1] = _chunk(asked, chunks[-1]["candidates"][0]["content"]["parts"], said.spent, is_last=True)
        failure = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}
        if is_sse:
            events = [event(chunk, end="\r\n") for chunk in chunks]
            if said.breaks:
                return broken_off([], events, event(failure, end="\r\n"), said.breaks)
            return Stream(events, content_type="text/event-stream")
        check(not said.breaks, "this fake breaks off no arrays")
        first, *rest = [encoded(chunk) for chunk in chunks]
        array = [b"[" + first, *[b",\r\n" + each for each in rest], b"]"]
        return Stream(array, content_type="application/json; charset=UTF-8")

    def count(self, received: Received) -> Answer:
        """The tokens of a request."""
        body = members(camel(received.json), "body", (), ("contents", "generateContentRequest"))
        found = CALL.fullmatch(received.path)
        assert found
        asked = read_generate(body.get("generateContentRequest", body), found[1])
        if asked.model == MISSING_MODEL:
            raise Refusal("model", f"models/{asked.model} is not found for API version v1beta")
        return Plain({"totalTokens": COUNTED, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": COUNTED}]})

    def embed(self, received: Received) -> Answer:
        """One embedding."""
        return Plain({"embedding": _embedding(received.json)})

    def embed_all(self, received: Received) -> Answer:
        """Several embeddings."""
        requests = is_list(members(received.json, "body", ("requests",))["requests"], "requests")
        return Plain({"embeddings": [_embedding(members(each, "requests", ("model",), EMBED)) for each in requests]})

    def models(self, received: Received) -> Answer:
        """All models, or the one that is named."""
        known = [_model(name) for name in MODELS]
        found = LIST.fullmatch(received.path)
        assert found
        if found[1] is None:
            return Plain({"models": known})
        for model in known:
            if model["name"] == f"models/{found[1]}":
                return Plain(model)
        raise Refusal("model", f"models/{found[1]} is not found for API version v1beta")


EMBED = ("content", "model", "taskType", "title", "outputDimensionality")


def _embedding(body: JSON) -> JSON:
    found = members(camel(body), "body", ("content",), EMBED)
    for part in members(found["content"], "content", ("parts",), ("role",))["parts"]:
        is_text(part["text"], "content.parts")
    return {"values": list(VECTOR)}


def _model(name: str) -> JSON:
    head = {"name": f"models/{name}", "version": "001", "displayName": name, "description": "A fake."}
    verbs = ["embedContent"] if "embedding" in name else ["generateContent", "countTokens"]
    limits = {"inputTokenLimit": 1048576, "outputTokenLimit": 65536, "supportedGenerationMethods": verbs}
    return {**head, **limits, "temperature": 1, "topP": 0.95, "topK": 64, "thinking": True}


def _parts(said: Turn) -> list[JSON]:
    parts: list[JSON] = [{"text": said.thought, "thought": True}] if said.thought else []
    if said.text:
        signed = {"thoughtSignature": SIGNATURE} if said.thought else {}
        parts.append({"text": said.text, **signed})
    return parts + _call_parts(said)


def _call_parts(said: Turn) -> list[JSON]:
    """The calls, without ids; only the first of several at once is signed."""
    calls: list[JSON] = [{"functionCall": {"name": call.name, "args": call.arguments}} for call in said.calls]
    if calls and said.thought:
        calls[0]["thoughtSignature"] = SIGNATURE
    return calls


def _chunk(asked: Asked, parts: list[JSON], spent: Spent, *, is_last: bool = False) -> JSON:
    reason = {"finishReason": "STOP"} if is_last else {}
    usage: JSON = {
        "promptTokenCount": spent.input,
        "candidatesTokenCount": spent.output - spent.reasoning,
        "totalTokenCount": spent.input + spent.output,
        "cachedContentTokenCount": spent.cached,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": spent.input}],
    }
    if spent.reasoning:
        usage["thoughtsTokenCount"] = spent.reasoning
    candidate = {"content": {"parts": parts, "role": "model"}, **reason, "index": 0}
    tail = {"modelVersion": asked.model, "responseId": "fake-response-1"}
    return {"candidates": [candidate], "usageMetadata": usage, **tail}
