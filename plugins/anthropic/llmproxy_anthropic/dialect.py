"""Anthropic's dialect: messages, the counting of their tokens, model lists."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

from llmproxy_anthropic import errors, model_lists, reply, reply_write, request
from llmproxy_anthropic.apis import APIS, COUNT_TOKENS, MESSAGES, MODEL, NAME
from llmproxy_anthropic.form import COUNT_FORM, MESSAGES_FORM
from llmproxy_anthropic.scan import MessageScanner
from llmproxy_anthropic.stream_read import MessageReader
from llmproxy_anthropic.stream_render import PING
from llmproxy_anthropic.stream_write import MessageWriter
from llmproxy_core import (
    Api,
    Dialect,
    Headers,
    Located,
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
    INTEGER,
    Form,
    Members,
    encode,
    garbage,
    join_object,
    read_error,
    read_parameters,
    read_request,
    write_request,
)

VERSION = "2023-06-01"
"""The version of the API that translated calls are written for: the one whose older models take a temperature."""

_OTHERS_MESSAGES = re.compile(r"/threads/[^/]+$").search
"""What stands before `/messages` in an API of OpenAI's."""


class AnthropicDialect(Dialect):
    """The protocol of `api.anthropic.com`, and of the servers that are compatible with it."""

    name = NAME
    apis = APIS
    roots = ("/v1",)
    versioned_base = False

    request_headers = frozenset({"anthropic-version", "anthropic-beta"})
    response_headers = frozenset({"retry-after", "x-should-retry"})
    response_header_prefixes = ("anthropic-ratelimit-",)
    request_id_header = "request-id"
    prefill = "last-turn"
    field_names = {  # noqa: RUF012 - as declared by the contract; nobody changes it
        "system": "system",
        "max_output_tokens": "max_tokens",
        "stop": "stop_sequences",
        "user": "metadata.user_id",
        "reasoning": "thinking",
        "response_format": "output_config.format",
        "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
        "cache": "cache_control",
    }

    request_forms: ClassVar[Mapping[str, Form]] = {
        MESSAGES.form: MESSAGES_FORM,
        COUNT_TOKENS.form: COUNT_FORM,
    }

    # -- where -----------------------------------------------------------------------------------------------------

    def locate(self, path: str) -> Sequence[Located]:
        found = super().locate(path)
        return [it for it in found if it.api is not MESSAGES or _OTHERS_MESSAGES(path[: it.start]) is None]

    def claims(self, api: Api, headers: Headers, query: str) -> bool:
        return "anthropic-version" in headers

    # -- requests --------------------------------------------------------------------------------------------------

    def read_head(self, api: Api, body: bytes) -> RequestHead:
        return request.read_head(body)

    def read_chat(self, api: Api, body: bytes) -> ChatRequest:
        return read_request(api.form, self.request_forms[api.form], body)

    def read_parameters(self, api: Api, body: bytes) -> ChatRequest:
        return read_parameters(api.form, self.request_forms[api.form], body)

    def write_chat(self, api: Api, chat: ChatRequest, translation: Translation | None = None) -> bytes:
        written = write_request(api.form, self.request_forms[api.form], chat, translation)
        was = chat.origin
        return written if was is None or was.api != api.form else request.without_clearing(was.text, written)

    def prepare(
        self, api: Api, body: bytes, *, model: str | None = None, stream: bool | None = None, ask_usage: bool = False
    ) -> bytes:
        is_chat = api is MESSAGES
        return request.prepare(
            api.form, self.request_forms[api.form], body, model=model, stream=stream if is_chat else None
        )

    # -- whole answers ---------------------------------------------------------------------------------------------

    def scan_reply(self, api: Api, body: bytes) -> ReplyHead:
        return reply.scan_reply(body)

    def read_reply(self, api: Api, body: bytes) -> ChatReply:
        return reply.read_reply(body)

    def write_reply(self, api: Api, reply: ChatReply) -> bytes:
        return reply_write.write_reply(reply)

    # -- streams ---------------------------------------------------------------------------------------------------

    def scanner(self, api: Api, *, usage: bool) -> Scanner:
        return MessageScanner()

    def reader(self, api: Api) -> StreamReader:
        return MessageReader()

    def writer(self, api: Api, *, usage: bool) -> StreamWriter:
        return MessageWriter()

    def keepalive(self, api: Api) -> bytes:
        return PING

    # -- errors ----------------------------------------------------------------------------------------------------

    def read_error(self, status: int, headers: Headers, body: bytes) -> UpstreamError:
        crossing = tuple((name, value) for name, value in headers if self.crosses(name))
        return read_error(self.name, status, headers, crossing, body)

    def write_error(self, error: ProxyError, request_id: str) -> bytes:
        return errors.write_error(error, request_id)

    def error_event(
        self,
        error: ProxyError,
        request_id: str,
        api: Api | None = None,
        told: Scanner | StreamWriter | None = None,
    ) -> bytes:
        before = told.unsaid if isinstance(told, MessageWriter) else b""
        return before + errors.error_event(error, request_id)

    def error_status(self, error: ProxyError) -> int:
        return errors.error_status(error)

    # -- upstream calls --------------------------------------------------------------------------------------------

    def auth_headers(self, key: Secret) -> list[tuple[str, str]]:
        return [("x-api-key", key.reveal())]

    def default_headers(self) -> list[tuple[str, str]]:
        return [("anthropic-version", VERSION)]

    # -- token counts ----------------------------------------------------------------------------------------------

    def read_count(self, api: Api, body: bytes) -> int:
        return Members(body, "", garbage).need("input_tokens", INTEGER)

    def write_count(self, api: Api, tokens: int) -> bytes:
        return join_object({"input_tokens": encode(tokens)})

    # -- model lists -----------------------------------------------------------------------------------------------

    def read_models(self, api: Api, body: bytes) -> Sequence[ModelInfo]:
        return model_lists.read_models(body)

    def write_models(self, api: Api, models: Sequence[ModelInfo]) -> bytes:
        if api is MODEL:
            return model_lists.write_model(models[0])
        return model_lists.write_models(models)
