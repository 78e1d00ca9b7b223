"""A question to a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

from llmproxy_core.chat.origin import ChatOrigin
from llmproxy_core.chat.parts import CacheMark, JSONText, Message, Raw
from llmproxy_core.node import node


@node
class Tool:
    """A tool the caller runs. *parameters* is its JSON Schema as JSON text, None for no parameters."""

    name: str
    description: str | None = None
    parameters: JSONText | None = None
    strict: bool | None = None
    kind: Literal["function", "custom", "legacy"] = "function"
    cache: CacheMark | None = None
    format: JSONText | None = None
    """What a custom tool takes (a grammar), as OpenAI's Responses say it; None: any text."""
    extra: Mapping[str, JSONText] = attrs.field(factory=dict, repr=False, kw_only=True)
    raw: Raw | None = attrs.field(init=False, default=None, eq=False, repr=False)


@node
class BuiltinTool:
    """A tool the provider runs (web search, code execution, …); *kind* is its type in its own protocol."""

    kind: str
    raw: Raw


@node
class ToolChoice:
    """auto, none, required (any tool), or required among *names*; `allowed`: auto among *names*."""

    mode: Literal["auto", "none", "required", "named", "allowed"]
    names: tuple[str, ...] = ()


@node
class ResponseFormat:
    """What the answer's text must be. *schema* is a JSON Schema as JSON text."""

    kind: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: JSONText | None = None
    strict: bool | None = None
    description: str | None = None


@node
class ReasoningConfig:
    """How much to think: *effort* as a word (none … max), or *budget_tokens* (0 off, -1 the model's choice)."""

    effort: str | None = None
    budget_tokens: int | None = None
    adaptive: bool = False
    summary: str | None = None
    include: bool | None = None
    """Whether thinking is shown in the answer."""
    between_tools: bool = False
    """Think between the tool calls of a turn only."""


@node
class ChatRequest:
    """
    One question to a model.

    None means "not said". *extra* are members the dialect does not know, by name; another dialect cannot say them.
    *origin* survives `attrs.evolve`: a writer of the same wire form splices the members whose fields are untouched.
    """

    model: str | None
    messages: tuple[Message, ...]
    stream: bool = False
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: JSONText | None = None
    tools: tuple[Tool | BuiltinTool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning: ReasoningConfig | None = None
    verbosity: str | None = None
    modalities: tuple[str, ...] = ()
    audio: JSONText | None = None
    prediction: JSONText | None = None
    user: str | None = None
    metadata: JSONText | None = None
    service_tier: str | None = None
    store: bool | None = None
    cache_key: str | None = None
    cache: CacheMark | None = None
    """The provider is to choose the breakpoints of the prompt cache itself (Anthropic's mark on the request)."""
    wants_usage: bool = False
    """The client of a stream asked for a usage event."""
    extra: Mapping[str, JSONText] = attrs.field(factory=dict, repr=False, kw_only=True)
    origin: ChatOrigin | None = attrs.field(default=None, eq=False, repr=False, kw_only=True)
