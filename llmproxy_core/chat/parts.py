"""The parts of a conversation, and the turns they make up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

import attrs
from msgspec.structs import force_setattr

from llmproxy_core.node import node

JSONText = bytes
"""One JSON value as it stood on the wire."""


@node
class Raw:
    """The bytes a node was read from, and the wire form (`Api.form`) they are written in."""

    api: str
    text: JSONText


N = TypeVar("N")


def remember(node: N, api: str, text: JSONText) -> N:
    """*node*, now remembering the bytes it was read from."""
    # The one write to a frozen node, by its reader, before anyone sees it; underneath it is a Struct.
    force_setattr(node, "raw", Raw(api, text))  # type: ignore[arg-type]
    return node


@node
class Source:
    """Where media comes from; exactly one of url, data, file_id, text is set."""

    url: str | None = None
    data: str | None = None
    """Base64, without a data-URL prefix."""
    file_id: str | None = None
    text: str | None = None
    media_type: str | None = None


@node
class CacheMark:
    """A prompt-cache breakpoint after this node; *ttl* as the provider spells it ("5m", "1h"), None for its default."""

    ttl: str | None = None


@node
class Citation:
    """A source named by the answer. *text* is the cited passage; offsets count characters of the cited text part."""

    kind: str
    url: str | None = None
    title: str | None = None
    text: str | None = None
    start: int | None = None
    end: int | None = None
    raw: Raw | None = attrs.field(init=False, default=None, eq=False, repr=False)

    def moved(self, offset: int, length: int) -> Citation:
        """The same in a longer text, in which the part that it cites, of *length* characters, begins at *offset*."""
        start = offset + (self.start or 0)
        end = offset + length if self.start is None else None if self.end is None else offset + self.end
        if (start, end) == (self.start, self.end):
            return self
        moved = attrs.evolve(self, start=start, end=end)
        if self.raw is None or self.start is not None:  # what was read tells the place that it had
            return moved
        return remember(moved, self.raw.api, self.raw.text)


@node
class TextPart:
    text: str
    citations: tuple[Citation, ...] = ()
    cache: CacheMark | None = None
    signature: str | None = None
    extra: Mapping[str, JSONText] = attrs.field(factory=dict, repr=False, kw_only=True)
    raw: Raw | None = attrs.field(init=False, default=None, eq=False, repr=False)


@node
class ImagePart:
    source: Source
    detail: str | None = None
    cache: CacheMark | None = None
    signature: str | None = None
    extra: Mapping[str, JSONText] = attrs.field(factory=dict, repr=False, kw_only=True)
    raw: Raw | None = attrs.field(init=False, default=None, eq=False, repr=False)


@node
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


@node
class AudioPart:
    """Spoken input, or spoken output with its transcript. *source.media_type* is `audio/FORMAT`."""

    source: Source
    id: str | None = None
    transcript: str | None = None
    extra: Mapping[str, JSONText] = attrs.field(factory=dict, repr=False, kw_only=True)
    raw: Raw | None = attrs.field(init=False, default=None, eq=False, repr=False)


@node
class VideoPart:
    source: Source
    extra: Mapping[str, JSONText] = attrs.field(factory=dict, repr=False, kw_only=True)
    raw: Raw | None = attrs.field(init=False, default=None, eq=False, repr=False)


@node
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


@node
class RefusalPart:
    text: str
    extra: Mapping[str, JSONText] = attrs.field(factory=dict, repr=False, kw_only=True)
    raw: Raw | None = attrs.field(init=False, default=None, eq=False, repr=False)


@node
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


@node
class ToolResult:
    """The answer to a tool call, paired by *call_id* (and *name* where the protocol pairs by name)."""

    call_id: str
    content: tuple[Part, ...]
    name: str | None = None
    is_error: bool = False
    cache: CacheMark | None = None
    extra: Mapping[str, JSONText] = attrs.field(factory=dict, repr=False, kw_only=True)
    raw: Raw | None = attrs.field(init=False, default=None, eq=False, repr=False)


@node
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


@node
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
