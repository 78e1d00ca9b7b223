"""Mistral's dialect: OpenAI's chat completions with differences of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

from llmproxy_core import (
    Api,
    EmbeddingsReply,
    EmbeddingsRequest,
    Headers,
    ModelInfo,
    ProxyError,
    RequestHead,
    Scanner,
    StreamWriter,
    UpstreamError,
)
from llmproxy_core.chat import FinishReason
from llmproxy_core.wire import Form
from llmproxy_mistral import errors, models, paths
from llmproxy_mistral.chat_form import CHAT_FORM
from llmproxy_mistral.stream_render import MistralWriter
from llmproxy_mistral.translated import MistralRequest
from llmproxy_openai import (
    FINISH_WORDS,
    ChunkScanner,
    OpenAIDialect,
    ReplyForm,
    RequestTranslator,
    StreamForm,
    write_embeddings_reply,
)

_FINISHES = dict(FINISH_WORDS) | dict.fromkeys(
    (FinishReason.CONTENT_FILTER, FinishReason.REFUSAL, FinishReason.ERROR), "error"
)
"""What was filtered has no word here either, and is no normal end."""

_AGENTS = ("mistral-client", "ai-sdk/mistral", "mistralai")


class MistralDialect(OpenAIDialect):
    """The protocol of `api.mistral.ai/v1`."""

    name = "mistral"
    apis = paths.APIS

    request_headers = frozenset({"x-affinity"})
    influencing_headers = frozenset()
    response_headers = frozenset({"retry-after"})
    response_header_prefixes = ("x-ratelimit-", "ratelimitbysize-")
    field_names = MappingProxyType(
        {
            "max_output_tokens": "max_tokens",
            "seed": "random_seed",
            "reasoning": "reasoning_effort",
            "cache_key": "prompt_cache_key",
            "dimensions": "output_dimension",
            "dtype": "output_dtype",
        }
    )
    request_id_header = "mistral-correlation-id"
    prefill = "prefix"
    own_members = frozenset(
        {
            "document_image_limit",
            "document_page_limit",
            "guardrails",
            "output_dimension",
            "output_dtype",
            "prompt_mode",
            "random_seed",
            "safe_prompt",
        }
    )

    request_forms: ClassVar[Mapping[str, Form]] = {paths.CHAT.name: CHAT_FORM}
    translators: ClassVar[Mapping[str, type[RequestTranslator]]] = {paths.CHAT.name: MistralRequest}
    reply_forms: ClassVar[Mapping[str, ReplyForm]] = {
        paths.CHAT.name: ReplyForm(
            paths.CHAT.name,
            "chat.completion",
            thinking="thinking",
            words=_FINISHES,
            has_refusals=False,
            has_legacy_calls=False,
        )
    }
    stream_forms: ClassVar[Mapping[str, StreamForm]] = {
        paths.CHAT.name: StreamForm(
            paths.CHAT.name,
            "chat.completion.chunk",
            thinking="thinking",
            words=_FINISHES,
            has_legacy_calls=False,
        )
    }
    embeddings_names = MappingProxyType({"dimensions": "output_dimension", "dtype": "output_dtype"})
    embeds_tokens = False

    def claims(self, api: Api, headers: Headers, query: str) -> bool:
        agent = (headers.get("user-agent") or "").lower()
        return any(word in agent for word in _AGENTS)

    # -- requests --------------------------------------------------------------------------------------------------

    def read_head(self, api: Api, body: bytes) -> RequestHead:
        head = super().read_head(api, body)
        head.wants_usage = head.stream  # it is told in any case
        return head

    def prepare(
        self, api: Api, body: bytes, *, model: str | None = None, stream: bool | None = None, ask_usage: bool = False
    ) -> bytes:
        return super().prepare(api, body, model=model, stream=stream)

    # -- streams ---------------------------------------------------------------------------------------------------

    def scanner(self, api: Api, *, usage: bool) -> Scanner:
        return ChunkScanner(self.name, usage=True)

    def writer(self, api: Api, *, usage: bool) -> StreamWriter:
        return MistralWriter(self.stream_forms[api.name], usage=True)

    # -- errors ----------------------------------------------------------------------------------------------------

    def read_error(self, status: int, headers: Headers, body: bytes) -> UpstreamError:
        crossing = tuple((name, value) for name, value in headers if self.crosses(name))
        return errors.read(self.name, status, headers, crossing, body)

    def write_error(self, error: ProxyError, request_id: str) -> bytes:
        return errors.write(self.name, error, request_id)

    def error_event(
        self,
        error: ProxyError,
        request_id: str,
        api: Api | None = None,
        told: Scanner | StreamWriter | None = None,
    ) -> bytes:
        return errors.event(self.name, error, request_id)

    # -- embeddings and models -------------------------------------------------------------------------------------

    def write_embeddings_reply(self, api: Api, reply: EmbeddingsReply, asked: EmbeddingsRequest) -> bytes:
        return write_embeddings_reply(reply, asked.encoding, with_id=True)

    def read_models(self, api: Api, body: bytes) -> Sequence[ModelInfo]:
        return models.read(body)

    def write_models(self, api: Api, models_: Sequence[ModelInfo]) -> bytes:
        return models.write_model(models_[0]) if "{model}" in api.path else models.write_list(models_)
