"""OpenAI's newer dialect: the Responses API."""

from __future__ import annotations

from collections.abc import Mapping

from llmproxy_core.chat import ChatReply, ChatRequest
from llmproxy_core.dialect import (
    Api,
    Operation,
    ReplyHead,
    RequestHead,
    Scanner,
    StreamReader,
    StreamWriter,
)
from llmproxy_core.errors import ProxyError
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.headers import Headers
from llmproxy_core.jsontext import TopLevel, scan
from llmproxy_core.translation import Translation
from llmproxy_core.wire import (
    BOOLEAN,
    INTEGER,
    STRING,
    Changes,
    Members,
    bad_request,
    decode,
    decode_object,
    encode,
    garbage,
    join_object,
    read_parameters,
    read_request,
    with_members,
    write_request,
)
from llmproxy_openai.dialect import OpenAIDialect
from llmproxy_openai.model_family import family_of
from llmproxy_openai.responses import errors, paths, reply
from llmproxy_openai.responses.carried_away import without_foreign
from llmproxy_openai.responses.form import COUNT_FORM, ENCRYPTED, FORM, LOGPROBS
from llmproxy_openai.responses.repeated import repeated
from llmproxy_openai.responses.scan import ResponseScanner
from llmproxy_openai.responses.stream_read import ResponseReader
from llmproxy_openai.responses.stream_write import ResponseWriter
from llmproxy_openai.responses.translated import ResponsesTranslator


class ResponsesDialect(OpenAIDialect):
    """
    The protocol of `api.openai.com/v1/responses`.

    Vectors, lists of models, errors and headers are as in OpenAI's other protocol.
    """

    name = paths.DIALECT
    apis = paths.APIS
    field_names = FrozenMap(
        {
            "messages": "input",
            "system": "instructions",
            "response_format": "text.format",
            "verbosity": "text.verbosity",
            "cache_key": "prompt_cache_key",
            "logprobs": "include",
        }
    )

    def claims(self, api: Api, headers: Headers, query: str) -> bool:
        return False  # the paths of its own are nobody else's, the others are OpenAI's other protocol's too

    # -- requests --------------------------------------------------------------------------------------------------

    def read_head(self, api: Api, body: bytes) -> RequestHead:
        top = scan(body)
        head = RequestHead()
        if (text := top.text("model")) is not None:
            head.model = decode(STRING, text, "model", bad_request)
        if (text := top.text("stream")) is not None and api.streams is None:
            head.stream = head.wants_usage = decode(BOOLEAN, text, "stream", bad_request)
        return head

    def read_chat(self, api: Api, body: bytes) -> ChatRequest:
        form = COUNT_FORM if api.operation is Operation.COUNT_TOKENS else FORM
        return read_request(api.form, form, body)

    def read_parameters(self, api: Api, body: bytes) -> ChatRequest:
        return read_parameters(api.form, FORM, body)

    def write_chat(self, api: Api, chat: ChatRequest, translation: Translation | None = None) -> bytes:
        form = COUNT_FORM if api.operation is Operation.COUNT_TOKENS else FORM
        if chat.origin is None or chat.origin.api == api.form:
            return without_foreign(write_request(api.form, form, chat, translation))
        translation = Translation() if translation is None else translation
        said = ResponsesTranslator(api.form, translation, chat).request()
        body = write_request(api.form, form, said, translation)
        if api.operation is Operation.COUNT_TOKENS or not family_of(chat.model).is_reasoning:
            return body
        # What is not kept can be taken up again only where the client brings it back.
        wanted = [ENCRYPTED, LOGPROBS] if said.logprobs else [ENCRYPTED]
        return with_members(body, {"include": encode(wanted)})

    def prepare(
        self, api: Api, body: bytes, *, model: str | None = None, stream: bool | None = None, ask_usage: bool = False
    ) -> bytes:
        if api.operation not in {Operation.CHAT, Operation.COUNT_TOKENS}:
            return super().prepare(api, body, model=model, stream=stream, ask_usage=ask_usage)
        raws = decode_object(body)
        changes: Changes = {}
        if model is not None and bytes(raws.get("model", b"null")) != (text := encode(model)):
            changes["model"] = text
        was_stream = bytes(raws.get("stream", b"null")) == b"true"
        if stream is not None and stream != was_stream and api.operation is Operation.CHAT:
            changes["stream"] = encode(stream)
            if not stream and "stream_options" in raws:
                changes["stream_options"] = None
        return without_foreign(TopLevel(body, raws).splice(changes) if changes else body)

    def answering(self, api: Api, chat: ChatRequest) -> ResponsesDialect:
        """An answer in this protocol repeats what was asked."""
        return RepeatingDialect(repeated(chat))

    # -- whole answers ---------------------------------------------------------------------------------------------

    def scan_reply(self, api: Api, body: bytes) -> ReplyHead:
        return reply.scan_reply(body) if api is paths.CREATE else super().scan_reply(api, body)

    def read_reply(self, api: Api, body: bytes) -> ChatReply:
        return reply.read_reply(body)

    def write_reply(self, api: Api, reply_: ChatReply) -> bytes:
        return reply.write_reply(reply_)

    # -- streams ---------------------------------------------------------------------------------------------------

    def scanner(self, api: Api, *, usage: bool) -> Scanner:
        return ResponseScanner()

    def reader(self, api: Api) -> StreamReader:
        return ResponseReader()

    def writer(self, api: Api, *, usage: bool) -> StreamWriter:
        return ResponseWriter()

    # -- errors ----------------------------------------------------------------------------------------------------

    def write_error(self, error: ProxyError, request_id: str) -> bytes:
        return errors.write_error(error, request_id)

    def error_event(
        self,
        error: ProxyError,
        request_id: str,
        api: Api | None = None,
        told: Scanner | StreamWriter | None = None,
    ) -> bytes:
        sequence, response = 0, None
        if isinstance(told, ResponseScanner | ResponseWriter) and told.response is not None:
            sequence, response = told.sequence, told.response
        return errors.event_of(error, request_id, sequence=sequence, response=response)

    # -- token counts ----------------------------------------------------------------------------------------------

    def read_count(self, api: Api, body: bytes) -> int:
        return Members(body, "", garbage).need("input_tokens", INTEGER)

    def write_count(self, api: Api, tokens: int) -> bytes:
        return join_object({"object": b'"response.input_tokens"', "input_tokens": encode(tokens)})


class RepeatingDialect(ResponsesDialect):
    """The protocol as one client is answered in it, whose answer is made anew: it repeats what that client asked."""

    def __init__(self, asked: Mapping[str, bytes]) -> None:
        """*asked* as `repeated` gives it."""
        self._asked = asked

    def write_reply(self, api: Api, reply_: ChatReply) -> bytes:
        return reply.write_reply(reply_, self._asked)

    def writer(self, api: Api, *, usage: bool) -> StreamWriter:
        return ResponseWriter(self._asked)
