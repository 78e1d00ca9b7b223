"""
The neutral conversation: what the chat protocols of all providers can say, in one set of values.

A dialect reads its JSON into these and writes them as its JSON. Nodes read from a wire remember the bytes they were
read from (`raw`), so that writing the same wire form again keeps an untouched node byte-equal; `attrs.evolve` drops
that memory. JSON that only its own protocol understands (schemas, arguments, unknown members) stays JSON text.
Field names and meanings: docs of the five protocols; where they differ, the docstring says which meaning is ours.
"""

from llmproxy_core.chat.change import changed
from llmproxy_core.chat.events import (
    AudioDelta,
    ChatEvent,
    CitationAdded,
    End,
    Failed,
    Finished,
    OpaqueEvent,
    Ping,
    ReasoningDelta,
    RefusalDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    UsageReported,
)
from llmproxy_core.chat.origin import ChatOrigin
from llmproxy_core.chat.parts import (
    AudioPart,
    CacheMark,
    Citation,
    DocumentPart,
    ImagePart,
    JSONText,
    Message,
    OpaquePart,
    Part,
    Raw,
    ReasoningPart,
    RefusalPart,
    Role,
    Source,
    TextPart,
    ToolCall,
    ToolResult,
    VideoPart,
    remember,
)
from llmproxy_core.chat.reply import ChatReply, Choice, Finish, FinishReason
from llmproxy_core.chat.request import BuiltinTool, ChatRequest, ReasoningConfig, ResponseFormat, Tool, ToolChoice
from llmproxy_core.node import node

__all__ = [
    "AudioDelta",
    "AudioPart",
    "BuiltinTool",
    "CacheMark",
    "ChatEvent",
    "ChatOrigin",
    "ChatReply",
    "ChatRequest",
    "Choice",
    "Citation",
    "CitationAdded",
    "DocumentPart",
    "End",
    "Failed",
    "Finish",
    "FinishReason",
    "Finished",
    "ImagePart",
    "JSONText",
    "Message",
    "OpaqueEvent",
    "OpaquePart",
    "Part",
    "Ping",
    "Raw",
    "ReasoningConfig",
    "ReasoningDelta",
    "ReasoningPart",
    "RefusalDelta",
    "RefusalPart",
    "ResponseFormat",
    "Role",
    "Source",
    "Start",
    "TextDelta",
    "TextPart",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolCallStart",
    "ToolChoice",
    "ToolResult",
    "UsageReported",
    "VideoPart",
    "changed",
    "node",
    "remember",
]
