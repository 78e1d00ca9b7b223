"""All that is known about Parley's protocol, as pure functions over bytes and values."""

from collections.abc import Sequence
from types import MappingProxyType

from llmproxy_core import (
    Api,
    Dialect,
    EmbeddingsReply,
    EmbeddingsRequest,
    Headers,
    ModelInfo,
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
from llmproxy_core.wire import (
    STRING,
    Members,
    encode,
    encode_event,
    garbage,
    join_array,
    join_object,
    read_error,
    read_parameters,
    read_request,
    write_request,
)
from llmproxy_parley import places, reply, request
from llmproxy_parley.apis import NAME, PLACES, TALK, VOICES
from llmproxy_parley.stream import TalkReader, TalkScanner, TalkWriter


class ParleyDialect(Dialect):
    """One instance serves all calls; it has no state."""

    name = NAME
    apis = (TALK, PLACES, VOICES)
    roots = ("/v1",)
    response_headers = frozenset({"retry-after", "x-parley-left"})
    field_names = MappingProxyType({"messages": "turns", "temperature": "heat", "max_output_tokens": "limit"})

    def claims(self, api: Api, headers: Headers, query: str) -> bool:
        return "x-parley-key" in headers

    # -- requests ------------------------------------------------------------------------------------------------

    def read_head(self, api: Api, body: bytes) -> RequestHead:
        return request.read_head(body)

    def read_chat(self, api: Api, body: bytes) -> ChatRequest:
        return read_request(api.form, request.FORM, body)

    def read_parameters(self, api: Api, body: bytes) -> ChatRequest:
        return read_parameters(api.form, request.FORM, body)

    def write_chat(self, api: Api, chat: ChatRequest, translation: Translation | None = None) -> bytes:
        return write_request(api.form, request.FORM, chat, translation)

    def prepare(
        self, api: Api, body: bytes, *, model: str | None = None, stream: bool | None = None, ask_usage: bool = False
    ) -> bytes:
        return request.prepare(body, model, stream if api is TALK else None)

    # -- answers -------------------------------------------------------------------------------------------------

    def scan_reply(self, api: Api, body: bytes) -> ReplyHead:
        return reply.scan_reply(body)

    def read_reply(self, api: Api, body: bytes) -> ChatReply:
        return reply.read_reply(body)

    def write_reply(self, api: Api, reply_: ChatReply) -> bytes:
        return reply.write_reply(reply_)

    def scanner(self, api: Api, *, usage: bool) -> Scanner:
        return TalkScanner()

    def reader(self, api: Api) -> StreamReader:
        return TalkReader()

    def writer(self, api: Api, *, usage: bool) -> StreamWriter:
        return TalkWriter()

    def keepalive(self, api: Api) -> bytes:
        return b": still here\n\n"

    # -- errors --------------------------------------------------------------------------------------------------

    def read_error(self, status: int, headers: Headers, body: bytes) -> UpstreamError:
        crossing = tuple((name, value) for name, value in headers if self.crosses(name))
        return read_error(self.name, status, headers, crossing, body)

    def write_error(self, error: ProxyError, request_id: str) -> bytes:
        if isinstance(error, UpstreamError) and error.dialect == self.name and error.body is not None:
            return error.body  # the provider's own words
        members = {"message": encode(error.message), "type": encode(error.code), "call": encode(request_id)}
        return join_object({"error": join_object(members)})

    def error_event(
        self,
        error: ProxyError,
        request_id: str,
        api: Api | None = None,
        told: Scanner | StreamWriter | None = None,
    ) -> bytes:
        return encode_event(self.write_error(error, request_id), "oops")

    # -- upstream calls ------------------------------------------------------------------------------------------

    def auth_headers(self, key: Secret) -> list[tuple[str, str]]:
        return [("x-parley-key", key.reveal())]

    # -- embeddings ----------------------------------------------------------------------------------------------

    def read_embeddings(self, api: Api, body: bytes) -> EmbeddingsRequest:
        return places.read_request(body)

    def write_embeddings(self, api: Api, asked: EmbeddingsRequest, translation: Translation | None = None) -> bytes:
        return places.write_request(asked, translation)

    def read_embeddings_reply(self, api: Api, body: bytes) -> EmbeddingsReply:
        return places.read_reply(body)

    def write_embeddings_reply(self, api: Api, reply_: EmbeddingsReply, asked: EmbeddingsRequest) -> bytes:
        return places.write_reply(reply_)

    # -- model lists ---------------------------------------------------------------------------------------------

    def read_models(self, api: Api, body: bytes) -> Sequence[ModelInfo]:
        voices = Members(body, "", garbage).array("voices")
        return [ModelInfo(Members(text, "voices", garbage).need("id", STRING)) for text in voices]

    def write_models(self, api: Api, models: Sequence[ModelInfo]) -> bytes:
        voices = join_array(join_object({"id": encode(model.id)}) for model in models)
        return join_object({"voices": voices})
