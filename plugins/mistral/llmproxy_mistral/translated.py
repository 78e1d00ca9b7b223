"""Requests of other protocols, as far as Mistral's can say them."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

from llmproxy_core.chat import (
    AudioPart,
    BuiltinTool,
    DocumentPart,
    Message,
    Part,
    ReasoningConfig,
    ReasoningPart,
    RefusalPart,
    Role,
    TextPart,
    Tool,
    ToolCall,
    ToolResult,
    changed,
    remember,
)
from llmproxy_core.wire import encode, join_object, text_tool, uses_tools
from llmproxy_openai import EFFORTS, MessageTranslator, PartTranslator, RequestTranslator, effort_of

_HOTTEST = 1.5
_NO_PARAMETERS = b'{"type":"object","properties":{}}'
_OWN_ID = re.compile(r"[a-zA-Z0-9]{9}")
_SIGNS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def short_id(call_id: str) -> str:
    """*call_id* as many models demand it: nine letters and digits. The same for the same id; theirs stay."""
    if _OWN_ID.fullmatch(call_id) is not None:
        return call_id
    number = int.from_bytes(blake2b(call_id.encode(), digest_size=8).digest())
    signs = []
    for _ in range(9):
        number, place = divmod(number, len(_SIGNS))
        signs.append(_SIGNS[place])
    return "".join(signs)


class MistralParts(PartTranslator):
    """What Mistral has other parts for."""

    def file(self, part: DocumentPart, place: str) -> Part | None:
        """A document by its URL, which may hold it."""
        source = part.source
        url = source.url
        if source.data is not None:
            url = f"data:{source.media_type or 'application/pdf'};base64,{source.data}"
        if url is None:
            self.wire.refuse(place, "a document by another's file id")
            return None
        members = {"type": b'"document_url"', "document_url": encode(url)}
        if part.title is not None:
            members["document_name"] = encode(part.title)
        return remember(DocumentPart(source, part.title), self.wire.api, join_object(members))

    def audio(self, part: AudioPart, place: str) -> Part | None:
        """Sound, as itself or by its URL."""
        sound = part.source.data or part.source.url
        if sound is None:
            self.wire.refuse(place, "audio by another's file id")
            return None
        text = join_object({"type": b'"input_audio"', "input_audio": encode(sound)})
        return remember(AudioPart(part.source), self.wire.api, text)

    def answered(self, part: Part, place: str) -> Part | None:
        """A refusal is a text."""
        said = super().answered(part, place)
        return TextPart(said.text) if isinstance(said, RefusalPart) else said

    def thinking(self, part: ReasoningPart) -> Part | None:
        """A part of the content."""
        if part.provider != self.dialect:
            return None
        return ReasoningPart(part.text, signature=part.signature, provider=part.provider, member="thinking")

    def call_id(self, call_id: str) -> str:
        return short_id(call_id)


class MistralMessages(MessageTranslator):
    """Mistral's rules of who may speak after whom, and the names of tools beside their results."""

    def messages(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        said = [
            message if message.name is None else changed(message, name=None)
            for message in super().messages(_paired(messages))
        ]
        return tuple(self._ended(self._answered(self._led(said))))

    def role(self, role: Role) -> Role:
        return "system" if role == "developer" else role

    def assistant(self, message: Message, parts: Iterable[tuple[str, Part]], place: str) -> list[Message]:
        """A turn may be one to be continued."""
        said = super().assistant(changed(message, prefix=False), parts, place)
        return [changed(each, prefix=message.prefix) for each in said]

    def result_name(self, result: ToolResult, place: str) -> str | None:
        """Every result has its tool's name."""
        call = self.calls[place]
        return text_tool.sent_name(call.name) if call.kind == "custom" else call.name

    def _led(self, messages: Iterable[Message]) -> list[Message]:
        """System messages after an answer or a result, and the last of all, are refused: they go to the front."""
        front: list[Message] = []
        rest: list[Message] = []
        for message in messages:
            if message.role == "system" and rest and rest[-1].role in {"assistant", "tool"}:
                self.wire.convert("messages", "reordered")
                front.append(message)
            elif message.role == "system" and not rest:
                front.append(message)
            else:
                rest.append(message)
        asked = _without_last_systems(rest)
        if len(asked) < len(rest):
            self.wire.convert("messages", "reordered")
        led = front + rest[len(asked) :]
        if led and not asked:
            self.wire.convert("messages", "converted")
            led[-1] = changed(led[-1], role="user")
        return led + asked

    def _answered(self, messages: Iterable[Message]) -> list[Message]:
        """After the result of a tool the assistant has to speak, before the user may."""
        said: list[Message] = []
        for message in messages:
            if said and said[-1].role == "tool" and message.role in {"user", "system"}:
                self.wire.convert("messages", "filled")
                said.append(Message("assistant", (TextPart("OK"),)))
            said.append(message)
        return said

    @staticmethod
    def _ended(messages: list[Message]) -> list[Message]:
        """An answer that ends the conversation is one to be continued."""
        if messages and messages[-1].role == "assistant":
            messages[-1] = changed(messages[-1], prefix=True)
        return messages


def _without_last_systems(messages: list[Message]) -> list[Message]:
    end = len(messages)
    while end and messages[end - 1].role == "system":
        end -= 1
    return messages[:end]


def _paired(messages: Sequence[Message]) -> Sequence[Message]:
    """
    OpenAI's calls in the legacy form, which have no id, with one, and with it the results that name their function.

    An id is made of the call's number, so that it stays the same as the conversation grows.
    """
    if not uses_tools(messages):
        return messages
    parts = (part for message in messages for part in message.content)
    if not any(isinstance(part, ToolCall) and part.kind == "legacy" for part in parts):
        return messages
    waiting: dict[str, deque[str]] = {}
    number = 0
    said: list[Message] = []
    for message in messages:
        content: list[Part] = []
        for part in message.content:
            if isinstance(part, ToolCall) and part.kind == "legacy":
                part = changed(part, id=short_id(f"function_call {number}"), kind="function")
                number += 1
                waiting.setdefault(part.name, deque()).append(part.id)
            elif isinstance(part, ToolResult) and not part.call_id and (ids := waiting.get(part.name or "")):
                part = changed(part, call_id=ids.popleft())
            content.append(part)
        said.append(changed(message, content=tuple(content)))
    return said


class MistralRequest(RequestTranslator):
    """Mistral's bounds and defaults."""

    most_stops = None

    def conversation(self) -> MessageTranslator:
        return MistralMessages(MistralParts(self.wire, self.family))

    def sampling(self) -> dict[str, Any]:
        """Up to 1.5; at zero, `top_p` must be 1."""
        changes = super().sampling()
        temperature = self.chat.temperature
        if temperature is not None and temperature > _HOTTEST:
            self.wire.convert("temperature", "clamped")
            changes["temperature"] = _HOTTEST
        if temperature == 0 and self.chat.top_p not in (None, 1):
            self.wire.convert("top_p", "clamped")
            changes["top_p"] = 1
        return changes

    def thinking(self) -> dict[str, Any]:
        """An effort, but to models that think in any case."""
        asked = self.chat.reasoning
        effort = None if asked is None else effort_of(asked)
        if asked is None or effort is None:
            return super().thinking()  # at most that it is left out
        if "magistral" in (self.chat.model or ""):
            self.wire.convert("reasoning", "dropped")
            return {"reasoning": None}
        if asked.effort is None:
            self.wire.convert("reasoning", "converted")
        if effort not in EFFORTS:
            self.wire.refuse("reasoning", f"the effort {effort!r}")
            return {"reasoning": None}
        return {"reasoning": ReasoningConfig(effort)}

    def tool(self, tool: Tool | BuiltinTool, place: str) -> Tool | None:
        """A tool has parameters in any case, and one form."""
        said = super().tool(tool, place)
        if said is None:
            return None
        if said.kind != "legacy" and said.parameters is not None:
            return said
        kind = "function" if said.kind == "legacy" else said.kind
        return changed(said, kind=kind, parameters=_NO_PARAMETERS if said.parameters is None else said.parameters)

    def takes_several_names(self) -> bool:
        return False

    def advice(self) -> dict[str, Any]:
        """What only other providers take."""
        if self.chat.service_tier not in (None, "auto"):
            self.translation.advise("service_tier")
        if self.chat.store:
            self.translation.advise("store")
        return {"service_tier": None, "store": None}
