"""OpenAI's dialect: chat completions, legacy completions, embeddings, model lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from llmproxy_core.chat import ChatReply, ChatRequest
from llmproxy_core.dialect import (
    Api,
    Dialect,
    Operation,
    ReplyHead,
    RequestHead,
    Scanner,
    StreamReader,
    StreamWriter,
)
from llmproxy_core.embeddings import EmbeddingsReply, EmbeddingsRequest
from llmproxy_core.errors import ProxyError, UpstreamError
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.headers import Headers
from llmproxy_core.model_list import ModelInfo
from llmproxy_core.secret import Secret
from llmproxy_core.translation import Translation
from llmproxy_core.wire import Form, read_error, read_parameters, read_request, write_request
from llmproxy_openai import embeddings, errors, facts, paths, request
from llmproxy_openai import models as model_lists
from llmproxy_openai import reply as replies
from llmproxy_openai.chat_form import CHAT_FORM
from llmproxy_openai.completions_form import COMPLETIONS_FORM
from llmproxy_openai.legacy import FunctionCalls, offers_functions, with_function_calls
from llmproxy_openai.reply import ReplyForm
from llmproxy_openai.scan import ChunkScanner
from llmproxy_openai.stream_form import StreamForm
from llmproxy_openai.stream_read import ChunkReader
from llmproxy_openai.stream_write import ChunkWriter
from llmproxy_openai.translated_request import RequestTranslator


class OpenAIDialect(Dialect):
    """
    The protocol of `api.openai.com/v1` and of the many servers that are compatible with it.

    A variant (Mistral's) is a subclass with its own name, apis and forms.
    """

    name = "openai"
    apis: tuple[Api, ...] = paths.APIS
    roots = ("/v1",)

    # The account that pays belongs to our key: neither `openai-organization` nor `openai-project` goes on.
    request_headers = frozenset({"openai-beta", "idempotency-key", "x-client-request-id"})
    own_members = frozenset(
        {
            "dimensions",
            "function_call",
            "functions",
            "logit_bias",
            "max_completion_tokens",
            "modalities",
            "prompt_cache_retention",
            "safety_identifier",
            "seed",
            "store",
            "stream_options",
            "user",
            "verbosity",
            "web_search_options",
        }
    )
    influencing_headers = frozenset({"openai-beta"})
    response_headers = frozenset(
        {"retry-after", "retry-after-ms", "x-should-retry", "openai-processing-ms", "openai-version"}
    )
    response_header_prefixes: tuple[str, ...] = ("x-ratelimit-",)
    field_names: Mapping[str, str] = FrozenMap(
        {
            "max_output_tokens": "max_completion_tokens",
            "reasoning": "reasoning_effort",
            "cache_key": "prompt_cache_key",
        }
    )

    request_forms: ClassVar[Mapping[str, Form]] = {
        paths.CHAT.name: CHAT_FORM,
        paths.COMPLETIONS.name: COMPLETIONS_FORM,
    }
    reply_forms: ClassVar[Mapping[str, ReplyForm]] = {
        paths.CHAT.name: ReplyForm(paths.CHAT.name, "chat.completion"),
        paths.COMPLETIONS.name: ReplyForm(paths.COMPLETIONS.name, "text_completion", is_legacy=True),
    }
    translators: ClassVar[Mapping[str, type[RequestTranslator]]] = {paths.CHAT.name: RequestTranslator}
    """What makes requests of other protocols sayable in a form; one without is written as far as it goes."""
    embeddings_names: ClassVar[embeddings.Names] = embeddings.OPENAI_NAMES
    embeds_tokens: ClassVar[bool] = True
    """Whether texts may be given as their tokens."""
    stream_forms: ClassVar[Mapping[str, StreamForm]] = {
        paths.CHAT.name: StreamForm(paths.CHAT.name, "chat.completion.chunk"),
        paths.COMPLETIONS.name: StreamForm(paths.COMPLETIONS.name, "text_completion", is_legacy=True),
    }

    def claims(self, api: Api, headers: Headers, query: str) -> bool:
        agent = headers.first.get("user-agent")
        return agent is not None and "openai/" in agent.lower()  # also AsyncOpenAI/Python, and Azure's

    # -- requests --------------------------------------------------------------------------------------------------

    def read_head(self, api: Api, body: bytes) -> RequestHead:
        return request.read_head(body)

    def read_chat(self, api: Api, body: bytes) -> ChatRequest:
        return read_request(api.form, self.request_forms[api.form], body)

    def read_parameters(self, api: Api, body: bytes) -> ChatRequest:
        return read_parameters(api.form, self.request_forms[api.form], body)

    def write_chat(self, api: Api, chat: ChatRequest, translation: Translation | None = None) -> bytes:
        form = self.request_forms[api.form]
        if chat.origin is not None and chat.origin.api != api.form and api.form in self.translators:
            # Without a translation nobody is told of changes, and what cannot be said is refused.
            translation = Translation() if translation is None else translation
            chat = self.translators[api.form](api.form, translation, chat).request()
        return write_request(api.form, form, chat, translation)

    def prepare(
        self, api: Api, body: bytes, *, model: str | None = None, stream: bool | None = None, ask_usage: bool = False
    ) -> bytes:
        is_chat = api.operation is Operation.CHAT
        return request.prepare(body, model, stream if is_chat else None, ask_usage=ask_usage and is_chat)

    # -- whole answers ---------------------------------------------------------------------------------------------

    def scan_reply(self, api: Api, body: bytes) -> ReplyHead:
        return facts.scan_reply(self.name, body, has_output=api is not paths.EMBEDDINGS)

    def read_reply(self, api: Api, body: bytes) -> ChatReply:
        return replies.read_reply(self.name, self.reply_forms[api.name], body)

    def write_reply(self, api: Api, reply: ChatReply) -> bytes:
        return replies.write_reply(self.reply_forms[api.name], reply)

    def answering(self, api: Api, chat: ChatRequest) -> OpenAIDialect:
        return _LEGACY if api is paths.CHAT and offers_functions(chat) else self

    # -- streams ---------------------------------------------------------------------------------------------------

    def scanner(self, api: Api, *, usage: bool) -> Scanner:
        return ChunkScanner(self.name, usage=usage)

    def reader(self, api: Api) -> StreamReader:
        return ChunkReader(self.name, api.name)

    def writer(self, api: Api, *, usage: bool) -> StreamWriter:
        return ChunkWriter(self.stream_forms[api.name], usage=usage)

    # -- errors ----------------------------------------------------------------------------------------------------

    def read_error(self, status: int, headers: Headers, body: bytes) -> UpstreamError:
        crossing = tuple((name, value) for name, value in headers if self.crosses(name))
        return read_error(self.name, status, headers, crossing, body)

    def write_error(self, error: ProxyError, request_id: str) -> bytes:
        return errors.write_error(self.name, error, request_id)

    def error_event(
        self,
        error: ProxyError,
        request_id: str,
        api: Api | None = None,
        told: Scanner | StreamWriter | None = None,
    ) -> bytes:
        return errors.error_event(self.name, error, request_id)

    # -- upstream calls --------------------------------------------------------------------------------------------

    def auth_headers(self, key: Secret) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {key.reveal()}")]

    # -- embeddings ------------------------------------------------------------------------------------------------

    def read_embeddings(self, api: Api, body: bytes) -> EmbeddingsRequest:
        return embeddings.read_request(body, self.embeddings_names)

    def write_embeddings(self, api: Api, asked: EmbeddingsRequest, translation: Translation | None = None) -> bytes:
        return embeddings.write_request(
            api.form, asked, translation, self.embeddings_names, takes_tokens=self.embeds_tokens
        )

    def read_embeddings_reply(self, api: Api, body: bytes) -> EmbeddingsReply:
        return embeddings.read_reply(body)

    def write_embeddings_reply(self, api: Api, reply: EmbeddingsReply, asked: EmbeddingsRequest) -> bytes:
        return embeddings.write_reply(reply, asked.encoding)

    # -- model lists -----------------------------------------------------------------------------------------------

    def read_models(self, api: Api, body: bytes) -> Sequence[ModelInfo]:
        return model_lists.read_models(body)

    def write_models(self, api: Api, models: Sequence[ModelInfo]) -> bytes:
        if "{model}" in api.path:
            return model_lists.write_model(models[0])
        return model_lists.write_model_list(models)

    def keepalive(self, api: Api) -> bytes:
        return b": keep-alive\n\n"

    def error_status(self, error: ProxyError) -> int:
        is_own = isinstance(error, UpstreamError) and error.dialect == self.name
        return 503 if error.status == 529 and not is_own else error.status


class _LegacyDialect(OpenAIDialect):
    """This protocol for clients that offer `functions`."""

    def write_reply(self, api: Api, reply: ChatReply) -> bytes:
        return super().write_reply(api, with_function_calls(reply))

    def writer(self, api: Api, *, usage: bool) -> StreamWriter:
        return FunctionCalls(super().writer(api, usage=usage))


_LEGACY = _LegacyDialect()
