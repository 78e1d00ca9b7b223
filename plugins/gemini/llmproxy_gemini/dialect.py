"""Gemini's dialect: content generation, plain and in both forms of streams, token counts, embeddings, model lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl

from llmproxy_core import (
    Api,
    Dialect,
    EmbeddingsReply,
    EmbeddingsRequest,
    Headers,
    Located,
    ModelInfo,
    Operation,
    ProxyError,
    ReplyHead,
    RequestHead,
    Scanner,
    Secret,
    StreamReader,
    StreamWriter,
    Translation,
    UpstreamError,
)
from llmproxy_core.chat import ChatReply, ChatRequest
from llmproxy_gemini import apis, count, embeddings, errors, model_lists, reply_read, reply_write, request
from llmproxy_gemini.config_form import CONFIG, SCALARS
from llmproxy_gemini.scan import ArrayScanner, ChunkScanner
from llmproxy_gemini.stream_read import ArrayReader, ChunkEventReader
from llmproxy_gemini.stream_write import ArrayWriter, EventWriter

_FIELD_NAMES: Mapping[str, str] = {
    "messages": "contents",
    "system": "systemInstruction",
    "content": "parts",
    **{field: f"{CONFIG}.{name}" for field, (name, _) in SCALARS.items()},
    "stop": f"{CONFIG}.stopSequences",
    "modalities": f"{CONFIG}.responseModalities",
    "response_format": f"{CONFIG}.responseJsonSchema",
    "reasoning": f"{CONFIG}.thinkingConfig",
    "tool_choice": "toolConfig.functionCallingConfig",
    "service_tier": "serviceTier",
    "task": "taskType",
    "dimensions": "outputDimensionality",
}


class GeminiDialect(Dialect):
    """The protocol of `generativelanguage.googleapis.com`, in both of its versions."""

    name = apis.NAME
    apis = apis.APIS
    roots = ("/v1beta", "/v1")
    versioned_base = False

    request_headers = frozenset({"x-goog-api-client", "x-server-timeout"})
    influencing_headers: frozenset[str] | None = frozenset()
    response_headers = frozenset({"retry-after", "server-timing", "x-gemini-service-tier"})
    field_names = _FIELD_NAMES
    model_member = "modelVersion"

    def locate(self, path: str) -> Sequence[Located]:
        """As every dialect; a stream that nobody says the form of is an array, as Google has it."""
        return sorted(super().locate(path), key=lambda found: (found.start, not apis.is_array(found.api)))

    def claims(self, api: Api, headers: Headers, query: str) -> bool:
        words = dict(parse_qsl(query))
        if api.streams and api.operation is Operation.CHAT:
            if words.get("alt") == "sse":
                return not apis.is_array(api)
            if not apis.is_array(api):
                return False
        return "x-goog-api-key" in headers or "key" in words

    # -- requests --------------------------------------------------------------------------------------------------

    def read_head(self, api: Api, body: bytes) -> RequestHead:
        return request.read_head(body, streams=bool(api.streams))

    def read_chat(self, api: Api, body: bytes) -> ChatRequest:
        if api.operation is Operation.COUNT_TOKENS:
            return count.read_count_chat(body)
        return request.read_chat(body)

    def read_parameters(self, api: Api, body: bytes) -> ChatRequest:
        if api.operation is Operation.COUNT_TOKENS:
            return count.read_count_chat(body)
        return request.read_call_parameters(body)

    def write_chat(self, api: Api, chat: ChatRequest, translation: Translation | None = None) -> bytes:
        if api.operation is Operation.COUNT_TOKENS:
            return count.write_count_chat(chat, translation)
        return request.write_chat(chat, translation)

    def prepare(
        self, api: Api, body: bytes, *, model: str | None = None, stream: bool | None = None, ask_usage: bool = False
    ) -> bytes:
        match api.operation:
            case Operation.COUNT_TOKENS:
                return count.prepare_count(body, model)
            case Operation.EMBEDDINGS:
                return embeddings.prepare(api, body, model)
            case _:
                return request.prepare(body, model)

    # -- whole answers ---------------------------------------------------------------------------------------------

    def scan_reply(self, api: Api, body: bytes) -> ReplyHead:
        return reply_read.scan_reply(body, has_output=api.operation is not Operation.EMBEDDINGS)

    def read_reply(self, api: Api, body: bytes) -> ChatReply:
        return reply_read.read_reply(body)

    def write_reply(self, api: Api, reply: ChatReply) -> bytes:
        return reply_write.write_reply(reply)

    # -- streams ---------------------------------------------------------------------------------------------------

    def scanner(self, api: Api, *, usage: bool) -> Scanner:
        return ArrayScanner() if apis.is_array(api) else ChunkScanner()

    def reader(self, api: Api) -> StreamReader:
        return ArrayReader() if apis.is_array(api) else ChunkEventReader()

    def writer(self, api: Api, *, usage: bool) -> StreamWriter:
        return ArrayWriter(usage=usage) if apis.is_array(api) else EventWriter(usage=usage)

    # -- errors ----------------------------------------------------------------------------------------------------

    def read_error(self, status: int, headers: Headers, body: bytes) -> UpstreamError:
        crossing = tuple((name, value) for name, value in headers if self.crosses(name))
        return errors.read_provider_error(status, headers, crossing, body)

    def write_error(self, error: ProxyError, request_id: str) -> bytes:
        return errors.write_error(error, request_id)

    def error_event(
        self,
        error: ProxyError,
        request_id: str,
        api: Api | None = None,
        told: Scanner | StreamWriter | None = None,
    ) -> bytes:
        if api is not None and apis.is_array(api):
            return errors.error_element(error, request_id, told)
        return errors.error_event(error, request_id)

    def error_status(self, error: ProxyError) -> int:
        return errors.error_status(error)

    # -- upstream calls --------------------------------------------------------------------------------------------

    def auth_headers(self, key: Secret) -> list[tuple[str, str]]:
        return [("x-goog-api-key", key.reveal())]

    # -- embeddings, counts, lists ---------------------------------------------------------------------------------

    def read_embeddings(self, api: Api, body: bytes) -> EmbeddingsRequest:
        return embeddings.read_embeddings(api, body)

    def write_embeddings(self, api: Api, asked: EmbeddingsRequest, translation: Translation | None = None) -> bytes:
        return embeddings.write_embeddings(api, asked, translation)

    def read_embeddings_reply(self, api: Api, body: bytes) -> EmbeddingsReply:
        return embeddings.read_embeddings_reply(body)

    def write_embeddings_reply(self, api: Api, reply: EmbeddingsReply, asked: EmbeddingsRequest) -> bytes:
        return embeddings.write_embeddings_reply(reply, asked)

    def read_count(self, api: Api, body: bytes) -> int:
        return count.read_count(body)

    def write_count(self, api: Api, tokens: int) -> bytes:
        return count.write_count(tokens)

    def read_models(self, api: Api, body: bytes) -> Sequence[ModelInfo]:
        return model_lists.read_models(body)

    def write_models(self, api: Api, models: Sequence[ModelInfo]) -> bytes:
        if api is apis.MODEL:
            return model_lists.write_model(models[0])
        return model_lists.write_models(models)
