"""What a conversation and an answer say, whatever their bytes: for comparing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import msgspec

from llmproxy_core.chat import (
    AudioPart,
    ChatReply,
    ChatRequest,
    Choice,
    Citation,
    DocumentPart,
    ImagePart,
    JSONText,
    Message,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    Tool,
    ToolCall,
    ToolResult,
)

Facts = Mapping[str, object]

_COMPARED_APART = frozenset({"messages", "tools", "stream", "wants_usage", "extra", "origin", "response_format"})
_SEALS = ("signature", "redacted", "encrypted")


def of_request(chat: ChatRequest) -> Facts:
    """What *chat* asks, by name. Whether it streams is said elsewhere."""
    facts: dict[str, object] = {
        field.name: _value(getattr(chat, field.name))
        for field in attrs.fields(ChatRequest)
        if field.name not in _COMPARED_APART
    }
    thinking = chat.reasoning
    facts["reasoning"] = None if thinking is None else (thinking.effort, thinking.budget_tokens)
    wanted = chat.response_format
    if wanted is not None:
        schema = None if wanted.schema is None else decoded(wanted.schema)
        facts["response_format"] = (wanted.kind, schema, wanted.strict)
    facts["store"] = bool(chat.store)  # where it is the default, who does not ask for it is said to want none
    if chat.tool_choice is not None and chat.tool_choice.mode == "auto":
        facts["tool_choice"] = None  # the default, which some protocols must name to say what stands beside it
    facts["tools"] = [_tool(tool) if isinstance(tool, Tool) else tool.kind for tool in chat.tools]
    facts["messages"] = _turns(chat.messages)
    facts["cache marks"] = [mark for it in chat.messages for part in it.content for mark in _marks(part)]
    facts["unknown members"] = dict(chat.extra)
    return facts


def _value(value: object) -> object:
    if isinstance(value, bytes):
        return decoded(value)
    if attrs.has(type(value)):
        return attrs.asdict(value)  # type: ignore[arg-type]
    return value


def _marks(part: Part) -> list[str | None]:
    return [part.cache.ttl] if isinstance(part, TextPart) and part.cache is not None else []


def _tool(tool: Tool) -> object:
    parameters = None if tool.parameters is None else decoded(tool.parameters)
    return (tool.kind, tool.name, tool.description, parameters, bool(tool.strict))  # where strict is the default: False


def _turns(messages: Sequence[Message]) -> list[list[object]]:
    """The turns; those of one role in a row are one, for protocols that take them so."""
    turns: list[list[object]] = []
    names: dict[str, str] = {}
    for message in messages:
        names |= {part.id: part.name for part in message.content if isinstance(part, ToolCall)}
        parts = _parts(message.content, names)
        begun = turns[-1] if turns else None
        if begun is not None and begun[:3] == [message.role, message.name, message.prefix]:
            begun[3] = _joined([*begun[3], *parts])  # type: ignore[misc]
        else:
            turns.append([message.role, message.name, message.prefix, parts])
    return turns


def _parts(parts: Iterable[Part], names: Mapping[str, str]) -> list[tuple[object, ...]]:
    return _joined([fact for part in parts if (fact := _part(part, names)) is not None])


def _joined(facts: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Texts in a row as one."""
    joined: list[tuple[object, ...]] = []
    for fact in facts:
        if joined and fact[0] == "text" and joined[-1][0] == "text":
            joined[-1] = ("text", f"{joined[-1][1]}{fact[1]}")
        else:
            joined.append(fact)
    return joined


def _part(part: Part, names: Mapping[str, str]) -> tuple[object, ...] | None:
    match part:
        case TextPart(text=text):
            return ("text", text) if text else None
        case RefusalPart(text=text):
            return ("refusal", text)
        case ReasoningPart():
            seals = {name: it for name in _SEALS if (it := getattr(part, name)) is not None}
            return ("thinking", part.text, seals, part.provider if seals else None)
        case ToolCall():
            return ("call", part.id, part.name, arguments(part.arguments), part.signature)
        case ToolResult():
            name = part.name or names.get(part.call_id)
            return ("result", part.call_id, name, part.is_error, tuple(_parts(part.content, names)))
        case ImagePart(source=source) | AudioPart(source=source) | DocumentPart(source=source):
            place = (source.url, source.data, source.file_id, source.text)
            is_plain = source.url or isinstance(part, AudioPart)  # which tells its own format
            return (type(part).__name__, *place, None if is_plain else source.media_type)
        case _:
            return (type(part).__name__,)


def arguments(text: str) -> object:
    """A call's arguments as the JSON they are, if they are; none at all are an empty object."""
    try:
        return msgspec.json.decode(text.encode()) if text.strip() else {}
    except msgspec.MsgspecError:
        return text


def decoded(text: JSONText) -> Any:
    return msgspec.json.decode(text)


# -- answers -----------------------------------------------------------------------------------------------------


def of_reply(reply: ChatReply) -> Facts:
    """What *reply* says, by name. When it was made is not in it: not every protocol says."""
    usage = reply.usage
    counts = None
    if usage is not None:
        counts = {
            "input": usage.input_tokens,
            "output": usage.output_tokens,
            "cached": usage.cached_input_tokens,
            "cache written": usage.cache_write_tokens,
            "reasoning": usage.reasoning_tokens,
        }
    facts: dict[str, object] = {"id": reply.id, "model": reply.model, "usage": counts}
    facts["choices"] = [choice.index for choice in reply.choices]
    for choice in reply.choices:
        facts |= {f"choices[{choice.index}]: {name}": it for name, it in _choice(choice).items()}
    return facts


def _choice(choice: Choice) -> Facts:
    cited = [it for part in choice.content if isinstance(part, TextPart) for it in part.citations]
    return {
        "content": _parts(choice.content, {}),
        "finish": None if choice.finish is None else choice.finish.reason.value,
        "citations": [_citation(citation) for citation in cited],
        "logprobs": None if choice.logprobs is None else _without_nulls(decoded(choice.logprobs)),
    }


def _without_nulls(value: Any) -> Any:
    """A member that is null counts as absent."""
    return {name: it for name, it in value.items() if it is not None} if isinstance(value, dict) else value


def _citation(citation: Citation) -> object:
    return citation.url, citation.title


def differences(got: Facts, expected: Facts, *, but: Iterable[str] = ()) -> list[str]:
    """What *got* says otherwise than *expected*, each as a line, but for the names in *but*."""
    names = [name for name in {**expected, **got} if name not in set(but)]
    return [
        f"{name}: {shown(expected.get(name))} became {shown(got.get(name))}"
        for name in names
        if got.get(name) != expected.get(name)
    ]


def shown(value: object) -> str:
    """*value* for a message, not too long."""
    text = repr(value)
    return text if len(text) <= 600 else f"{text[:300]} … {text[-200:]}"
