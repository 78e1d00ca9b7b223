"""
The neutral conversation: what the chat protocols of all providers can say, in one set of values.

A dialect reads its JSON into these and writes them as its JSON. Nodes read from a wire remember the bytes they were
read from (`raw`), so that writing the same wire form again keeps an untouched node byte-equal; `attrs.evolve` drops
that memory. JSON that only its own protocol understands (schemas, arguments, unknown members) stays JSON text.
Field names and meanings: docs of the five protocols; where they differ, the docstring says which meaning is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal, TypeVar

import attrs

from llmproxy_core.usage import Usage

JSONText = bytes
"""One JSON value as it stood on the wire."""


@attrs.frozen
class Raw:
    """The bytes a node was read from, and the wire form (`Api.name`) they are written in."""

    api: str
    text: JSONText


N = TypeVar("N")


def remember(node: N, api: str, text: JSONText) -> N:
    """*node*, now remembering the bytes it was read from."""
    object.__setattr__(
        node, "raw", Raw(api, text)
    )  # the one write to a frozen node, by its reader, before anyone sees it
    return node


# -- parts ---------------------------------------------------------------------------------------------------------


@attrs.frozen
class Source:
    """Where media comes from; exactly one of url, data, file_id, text is set."""

    url: str | None = None
    data: str | None = None
    """Base64, without a data-URL prefix."""
    file_id: str | None = None
    text: str | None = None
    media_type: str | None = None


@attrs.frozen
class CacheMark:
    """A prompt-cache breakpoint after this node; *ttl* as the provider spells it ("5m", "1h"), None for its default."""

    ttl: str | None = None


@attrs.frozen
class Citation:
    """A source named by the answer. *text* is the cited passage; offsets count characters of the cited text part."""

    kind: str
    url: str | None = None
    title: str | None = None
    text: str | None = None
    start: int | None = None
    end: int | None = None
    raw: Raw | None = attrs.field(init=False, default=None, eq=False, repr=False)


@attrs.frozen
class TextPart:
    text: str
    citations: tuple[Citation, ...] = ()
    cache: CacheMark | None = None
    signature: str | None = None
    extra: Mapping[str, JSONText] = attrs.field(factory=dict, repr=False, kw_only=True)
    raw: Raw | None = attrs.field(init=False, default=None, eq=False, repr=False)


@attrs.frozen
class ImagePart:
    source: Source
    detail: str | None = None
    cache: CacheMark | None = None
    signature: str | None = None
    extra: Mapping[str, JSONText] = attrs.field(factory=dict, repr=False, kw_only=True)
    raw: Raw | None = attrs.field(init=False, default=None, eq=False, repr=False)


@attrs.frozen
class DocumentPart:
    source: Source
    title: str | None = None
    """File name or title."""
    context: str | None = None
    citations: bool | None = None
    """Whether the answer may cite this document."""
    cache: CacheMark | None = None
    extra: Mapping[str, JSONText] = attrs.field(factory=dict, repr=False, kw_only=True)
    raw: Raw | None = attrs.field(init=False, default=None, eq=False, repr=False)


@attrs.frozen
class AudioPart:
    """Spoken input, or spoken output with its transcript. *source.media_type* is `audio/FORMAT`."""

    source: Source
    id: str | None = None
    transcript: str | None = None
    extra: Mapping[str, JSONText] = attrs.field(factory=dict, repr=False, kw_only=True)
    raw: Raw | None = attrs.field(init=False, default=None, eq=False, repr=False)


@attrs.frozen
class VideoPart:
    source: Source
    extra: Mapping[str, JSONText] = attrs.field(factory=dict, repr=False, kw_only=True)
    raw: Raw | None = attrs.field(init=False, default=None, eq=False, repr=False)


@attrs.frozen
class ReasoningPart:
    """
    Thinking. *text* may be a summary, or empty when the provider shows none.

    *signature* (bound to the text) and *redacted* or *encrypted* data go back to the provider that made them
    unchanged, and to no other: *provider* names the dialect that issued them.
    """

    text: str
    summary: bool = False
    id: str | None = None
    signature: str | None = None
    redacted: str | None = None
    encrypted: str | None = None
    provider: str | None = None
    member: str | None = None
    """The de-facto member it came in, where a dialect has several (`reasoning_content`, `reasoning`)."""
    extra: Mapping[str, JSONText] = attrs.field(factory=dict, repr=False, kw_only=True)
    raw: Raw | None = attrs.field(init=False, default=None, eq=False, repr=False)


@attrs.frozen
class RefusalPart:
    text: str
    extra: Mapping[str, JSONText] = attrs.field(factory=dict, repr=False, kw_only=True)
    raw: Raw | None = attrs.field(init=False, default=None, eq=False, repr=False)


@attrs.frozen
class ToolCall:
    """A call the model asks for. *arguments* is the model's text: JSON by intention, not by guarantee."""

    id: str
    name: str
    arguments: str
    kind: Literal["function", "custom", "legacy"] = "function"
    """`legacy`: OpenAI's `function_call`, which has no id."""
    item_id: str | None = None
    """The second id of protocols that have two (Responses: item id; *id* is the pairing one)."""
    signature: str | None = None
    cache: CacheMark | None = None
    extra: Mapping[str, JSONText] = attrs.field(factory=dict, repr=False, kw_only=True)
    raw: Raw | None = attrs.field(init=False, default=None, eq=False, repr=False)


@attrs.frozen
class ToolResult:
    """The answer to a tool call, paired by *call_id* (and *name* where the protocol pairs by name)."""

    call_id: str
    content: tuple[Part, ...]
    name: str | None = None
    is_error: bool = False
    cache: CacheMark | None = None
    extra: Mapping[str, JSONText] = attrs.field(factory=dict, repr=False, kw_only=True)
    raw: Raw | None = attrs.field(init=False, default=None, eq=False, repr=False)


@attrs.frozen
class OpaquePart:
    """A part only its own protocol knows (server-side tools and their results); *kind* is its type there."""

    kind: str
    raw: Raw


Part = (
    TextPart
    | ImagePart
    | DocumentPart
    | AudioPart
    | VideoPart
    | ReasoningPart
    | RefusalPart
    | ToolCall
    | ToolResult
    | OpaquePart
)

Role = Literal["system", "developer", "user", "assistant", "tool"]


@attrs.frozen
class Message:
    """
    One turn. Tool calls are parts of an assistant turn; each result of the `tool` role is one ToolResult part.

    `developer` equals `system` outside OpenAI. System messages keep their place in the list; protocols with a
    system prompt of their own write and read the leading ones there.
    """

    role: Role
    content: tuple[Part, ...]
    name: str | None = None
    prefix: bool = False
    """This assistant turn is to be continued."""
    id: str | None = None
    """Its own id, where the protocol's messages have one (Responses)."""
    extra: Mapping[str, JSONText] = attrs.field(factory=dict, repr=False, kw_only=True)
    raw: Raw | None = attrs.field(init=False, default=None, eq=False, repr=False)

    @property
    def text(self) -> str:
        """The text parts, joined; "" when there is none."""
        return "".join(part.text for part in self.content if isinstance(part, TextPart))


# -- request -------------------------------------------------------------------------------------------------------


@attrs.frozen
class Tool:
    """A tool the caller runs. *parameters* is its JSON Schema as JSON text, None for no parameters."""

    name: str
    description: str | None = None
    parameters: JSONText | None = None
    strict: bool | None = None
    kind: Literal["function", "custom", "legacy"] = "function"
    cache: CacheMark | None = None
    extra: Mapping[str, JSONText] = attrs.field(factory=dict, repr=False, kw_only=True)
    raw: Raw | None = attrs.field(init=False, default=None, eq=False, repr=False)


@attrs.frozen
class BuiltinTool:
    """A tool the provider runs (web search, code execution, …); *kind* is its type in its own protocol."""

    kind: str
    raw: Raw


@attrs.frozen
class ToolChoice:
    """auto, none, required (any tool), or required among *names*; `allowed`: auto among *names*."""

    mode: Literal["auto", "none", "required", "named", "allowed"]
    names: tuple[str, ...] = ()


@attrs.frozen
class ResponseFormat:
    """What the answer's text must be. *schema* is a JSON Schema as JSON text."""

    kind: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: JSONText | None = None
    strict: bool | None = None
    description: str | None = None


@attrs.frozen
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


@attrs.frozen
class ChatOrigin:
    """What a request or reply was read from: all top-level members in their order, and the value before any change."""

    api: str
    members: Mapping[str, JSONText]
    value: ChatRequest | ChatReply
    text: JSONText = attrs.field(default=b"", repr=False)
    """The whole JSON text, for a writer that splices what changed into it."""


@attrs.frozen
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


# -- reply ---------------------------------------------------------------------------------------------------------


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"
    ERROR = "error"


@attrs.frozen
class Finish:
    """Why a choice ended; *word* is the provider's own spelling, *stop_sequence* the one that was met."""

    reason: FinishReason
    word: str | None = None
    stop_sequence: str | None = None
    detail: str | None = None
    """What the provider adds to the word: the category of a refusal, a message."""


@attrs.frozen
class Choice:
    """One answer. *finish* is None when the provider gave none."""

    index: int
    content: tuple[Part, ...]
    finish: Finish | None
    logprobs: JSONText | None = None
    extra: Mapping[str, JSONText] = attrs.field(factory=dict, repr=False, kw_only=True)
    raw: Raw | None = attrs.field(init=False, default=None, eq=False, repr=False)

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.content if isinstance(part, TextPart))


@attrs.frozen
class ChatReply:
    """A whole answer. *created* is seconds since the epoch."""

    id: str
    model: str
    choices: tuple[Choice, ...]
    usage: Usage | None = None
    created: int | None = None
    service_tier: str | None = None
    fingerprint: str | None = None
    extra: Mapping[str, JSONText] = attrs.field(factory=dict, repr=False, kw_only=True)
    origin: ChatOrigin | None = attrs.field(default=None, eq=False, repr=False, kw_only=True)

    @property
    def text(self) -> str:
        """The first choice's text; "" when there is no choice."""
        return self.choices[0].text if self.choices else ""


# -- events of a stream --------------------------------------------------------------------------------------------
# Plain slots: they are made per event. *choice* is the choice's index. A reader gives a Start before anything else
# of its stream and an End for its terminal event; nothing follows an End or a Failed.


@attrs.define
class Start:
    """The answer begins; what every later event shares."""

    id: str
    model: str
    created: int | None = None
    service_tier: str | None = None
    fingerprint: str | None = None


@attrs.define
class TextDelta:
    """A piece of text; *signature* as in TextPart, whole in one event, whose text may be empty."""

    choice: int
    text: str
    logprobs: JSONText | None = None
    signature: str | None = None


@attrs.define
class ReasoningDelta:
    """A piece of thinking; *signature*, *redacted*, *encrypted*, *id* as in ReasoningPart, each whole in one event."""

    choice: int
    text: str
    signature: str | None = None
    redacted: str | None = None
    encrypted: str | None = None
    provider: str | None = None
    member: str | None = None
    summary: bool = False
    id: str | None = None


@attrs.define
class RefusalDelta:
    choice: int
    text: str


@attrs.define
class ToolCallStart:
    """A tool call begins. *index* counts the calls of its choice from 0 without gaps."""

    choice: int
    index: int
    id: str
    name: str
    kind: Literal["function", "custom", "legacy"] = "function"
    signature: str | None = None
    item_id: str | None = None
    """As in ToolCall."""


@attrs.define
class ToolCallDelta:
    """A piece of the arguments' text."""

    choice: int
    index: int
    arguments: str


@attrs.define
class CitationAdded:
    choice: int
    citation: Citation


@attrs.define
class AudioDelta:
    """A piece of spoken output: base64 data, transcript, or both."""

    choice: int
    data: str | None = None
    transcript: str | None = None
    id: str | None = None


@attrs.define
class Finished:
    choice: int
    finish: Finish


@attrs.define
class UsageReported:
    """Token counts so far; the last one counts."""

    usage: Usage


@attrs.define
class Ping:
    """The provider is alive; nothing else."""


@attrs.define
class Failed:
    """
    The provider reports an error in mid-stream; the fields are those of UpstreamError.

    *body* is what it said, for clients that speak the protocol *dialect* too.
    """

    message: str
    code: str | None = None
    error_type: str | None = None
    status: int | None = None
    param: str | None = None
    retryable: bool = True
    retry_after_s: float | None = None
    dialect: str | None = None
    body: bytes | None = attrs.field(default=None, eq=False, repr=False)


@attrs.define
class End:
    """The terminal event: the answer is complete."""


@attrs.define
class OpaqueEvent:
    """An event only its own protocol knows; with *choice* and *api* it is an OpaquePart of that choice's content."""

    kind: str
    raw: bytes
    choice: int | None = None
    api: str | None = None


ChatEvent = (
    Start
    | TextDelta
    | ReasoningDelta
    | RefusalDelta
    | ToolCallStart
    | ToolCallDelta
    | CitationAdded
    | AudioDelta
    | Finished
    | UsageReported
    | Ping
    | Failed
    | End
    | OpaqueEvent
)
