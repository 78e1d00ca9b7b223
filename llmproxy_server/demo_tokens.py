"""
The demo LLM's count of tokens, by a rule of its own that can be checked by hand.

A token is four bytes of UTF-8, the last one begun counting whole. The prompt is the text of all messages, each part
counted by itself, with 4 tokens more for each message and 64 for each part that is no text (an image, a sound, a
file), and the name, description and parameters of each tool. The completion is the text of all choices, each counted
by itself; of a tool call the arguments alone.
"""

from __future__ import annotations

from llmproxy_core.chat import (
    ChatRequest,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    Tool,
    ToolCall,
    ToolResult,
)

BYTES_PER_TOKEN = 4
MESSAGE_TOKENS = 4
MEDIA_TOKENS = 64


def tokens(text: str) -> int:
    """The tokens of *text* by the rule above."""
    return -(-len(text.encode(errors="replace")) // BYTES_PER_TOKEN)


def prompt_tokens(chat: ChatRequest) -> int:
    """The tokens of all messages, and of the name, description and parameters of each tool."""
    messages = sum(MESSAGE_TOKENS + sum(_part_tokens(part) for part in message.content) for message in chat.messages)
    tools = (tool for tool in chat.tools if isinstance(tool, Tool))
    return messages + sum(
        tokens(tool.name + (tool.description or "") + (tool.parameters or b"").decode(errors="replace"))
        for tool in tools
    )


def _part_tokens(part: Part) -> int:
    match part:
        case TextPart() | ReasoningPart() | RefusalPart():
            return tokens(part.text)
        case ToolCall():
            return tokens(part.name + part.arguments)
        case ToolResult():
            return sum(_part_tokens(each) for each in part.content)
        case _:
            return MEDIA_TOKENS
