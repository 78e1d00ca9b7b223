"""All that is known about Ollama's own protocol, as pure functions over bytes and values."""

from collections.abc import Sequence
from types import MappingProxyType

from llmproxy_core import (
    Api,
    Dialect,
    EmbeddingsReply,
    EmbeddingsRequest,
    Headers,
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
from llmproxy_core.wire import read_parameters, read_request, write_request
from llmproxy_ollama import embeddings, errors, model_list, reply, request
from llmproxy_ollama.apis import CHAT, EMBED, NAME, ROOT, TAGS
from llmproxy_ollama.options import OPTION_NAMES
from llmproxy_ollama.reader import ChatReader
from llmproxy_ollama.scanner import ChatScanner
from llmproxy_ollama.writer import ChatWriter


class OllamaDialect(Dialect):
    """One instance serves all calls; it has no state."""

    name = NAME
    apis = (CHAT, EMBED, TAGS)
    roots = (ROOT,)
    versioned_base = False
    response_headers = frozenset({"retry-after"})
    field_names = MappingProxyType(OPTION_NAMES | {"response_format": "format", "reasoning": "think"})

    def claims(self, api: Api, headers: Headers, query: str) -> bool:
        return headers.get("user-agent", "").lower().startswith("ollama")

    # -- requests ------------------------------------------------------------------------------------------------

    def read_head(self, api: Api, body: bytes) -> RequestHead:
        return request.read_head(api, body)

    def read_chat(self, api: Api, body: bytes) -> ChatRequest:
        return read_request(api.form, request.FORM, body)

    def read_parameters(self, api: Api, body: bytes) -> ChatRequest:
        return read_parameters(api.form, request.FORM, body)

    def write_chat(self, api: Api, chat: ChatRequest, translation: Translation | None = None) -> bytes:
        return write_request(api.form, request.FORM, chat, translation)

    def prepare(
        self, api: Api, body: bytes, *, model: str | None = None, stream: bool | None = None, ask_usage: bool = False
    ) -> bytes:
        return request.prepare(api, body, model, stream)

    # -- answers -------------------------------------------------------------------------------------------------

    def scan_reply(self, api: Api, body: bytes) -> ReplyHead:
        return reply.scan_reply(body, has_output=api.operation is not Operation.EMBEDDINGS)

    def read_reply(self, api: Api, body: bytes) -> ChatReply:
        return reply.read_reply(body)

    def write_reply(self, api: Api, reply_: ChatReply) -> bytes:
        return reply.write_reply(reply_)

    def scanner(self, api: Api, *, usage: bool) -> Scanner:
        return ChatScanner()

    def reader(self, api: Api) -> StreamReader:
        return ChatReader()

    def writer(self, api: Api, *, usage: bool) -> StreamWriter:
        return ChatWriter()

    # -- errors --------------------------------------------------------------------------------------------------

    def read_error(self, status: int, headers: Headers, body: bytes) -> UpstreamError:
        crossing = tuple((name, value) for name, value in headers if self.crosses(name))
        return errors.read_error(status, headers, crossing, body)

    def write_error(self, error: ProxyError, request_id: str) -> bytes:
        return errors.write_error(error)

    def error_status(self, error: ProxyError) -> int:
        return errors.error_status(error)

    def error_event(
        self,
        error: ProxyError,
        request_id: str,
        api: Api | None = None,
        told: Scanner | StreamWriter | None = None,
    ) -> bytes:
        return self.write_error(error, request_id).replace(b"\n", b" ").strip() + b"\n"

    # -- upstream calls ------------------------------------------------------------------------------------------

    def auth_headers(self, key: Secret) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {key.reveal()}")]

    # -- embeddings ----------------------------------------------------------------------------------------------

    def read_embeddings(self, api: Api, body: bytes) -> EmbeddingsRequest:
        return embeddings.read_request(body)

    def write_embeddings(self, api: Api, asked: EmbeddingsRequest, translation: Translation | None = None) -> bytes:
        return embeddings.write_request(asked, translation)

    def read_embeddings_reply(self, api: Api, body: bytes) -> EmbeddingsReply:
        return embeddings.read_reply(body)

    def write_embeddings_reply(self, api: Api, reply_: EmbeddingsReply, asked: EmbeddingsRequest) -> bytes:
        return embeddings.write_reply(reply_)

    # -- model lists ---------------------------------------------------------------------------------------------

    def read_models(self, api: Api, body: bytes) -> Sequence[ModelInfo]:
        return model_list.read_models(body)

    def write_models(self, api: Api, models: Sequence[ModelInfo]) -> bytes:
        return model_list.write_models(models)
