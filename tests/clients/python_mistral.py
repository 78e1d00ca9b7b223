"""The official mistralai SDK of Python."""

from __future__ import annotations

import base64
import json
from importlib.metadata import version
from typing import Any, ClassVar, Self

from mistralai.client import Mistral, errors

from tests.clients.play import JSON, Client
from tests.providers.scenario import PNG, RESULTS, SCHEMA, TOOLS

IMAGE_URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


class Chat(Client):
    """`client.chat`."""

    name: ClassVar[str] = "python-mistralai"
    lacks: ClassVar[frozenset[str]] = frozenset({"count"})

    def __init__(self, url: str, key: str) -> None:
        super().__init__(url, key)
        self.sdk: Any = Mistral(api_key=key, server_url=url)

    @staticmethod
    def version() -> str:
        return f"mistralai {version('mistralai')}"

    async def __aenter__(self) -> Self:
        await self.sdk.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.sdk.__aexit__(None, None, None)

    async def _create(self, *, stream: bool, **asked: Any) -> tuple[JSON, Any, Any]:
        """The message as JSON, the word of the end, and the usage; a stream is put together here."""
        if not stream:
            answer = await self.sdk.chat.complete_async(**asked)
            choice = answer.choices[0]
            return choice.message.model_dump(mode="json", by_alias=True), choice.finish_reason, answer.usage
        message: JSON = {"role": "assistant", "content": [], "tool_calls": []}
        finish = usage = None
        async with await self.sdk.chat.stream_async(**asked) as events:
            async for event in events:
                usage = event.data.usage or usage
                choice = event.data.choices[0]
                finish = choice.finish_reason or finish
                delta = choice.delta.model_dump(mode="json", by_alias=True)
                content = delta.get("content")
                if isinstance(content, str):
                    content = [{"type": "text", "text": content}] if content else []
                message["content"] += content or []
                _grow(message["tool_calls"], delta.get("tool_calls") or [])
        if not finish:  # the SDK does not ask for one
            raise errors.NoResponseError("no finish reason")
        return message, finish, usage

    async def say(
        self, model: str, prompt: str, *, system: str = "", image: bool = False, stream: bool = False
    ) -> JSON:
        content: Any = prompt
        if image:
            content = [{"type": "text", "text": prompt}, {"type": "image_url", "image_url": IMAGE_URL}]
        messages: list[Any] = [{"role": "user", "content": content}]
        if system:
            messages.insert(0, {"role": "system", "content": system})
        message, finish, usage = await self._create(stream=stream, model=model, messages=messages)
        return {"text": _text(message), "finish": finish, **_spent(usage)}

    async def think(self, model: str, prompt: str, *, stream: bool) -> JSON:
        messages = [{"role": "user", "content": prompt}]
        message, _, usage = await self._create(stream=stream, model=model, messages=messages, reasoning_effort="low")
        return {"text": _text(message), "thought": _thought(message), **_spent(usage)}

    async def use_tools(self, model: str, prompt: str, *, stream: bool = False, think: bool = False) -> JSON:
        messages: list[Any] = [{"role": "user", "content": prompt}]
        asked: JSON = {"model": model, "tools": CHAT_TOOLS, **({"reasoning_effort": "low"} if think else {})}
        message, finish, _ = await self._create(stream=stream, messages=messages, **asked)
        messages.append(message)
        found = []
        for call in message["tool_calls"] or []:
            function = call["function"]
            found.append([function["name"], json.loads(function["arguments"])])
            result = {"role": "tool", "tool_call_id": call["id"], "name": function["name"]}
            messages.append({**result, "content": RESULTS[function["name"]]})
        last, _, _ = await self._create(stream=stream, messages=messages, **asked)
        return {"calls": found, "finish": finish, "text": _text(last), "thought": _thought(message)}

    async def structure(self, model: str, prompt: str) -> JSON:
        form = {"type": "json_schema", "json_schema": {"name": "city", "schema_definition": SCHEMA, "strict": True}}
        messages = [{"role": "user", "content": prompt}]
        message, _, _ = await self._create(stream=False, model=model, messages=messages, response_format=form)
        return {"value": json.loads(_text(message))}

    async def models(self) -> JSON:
        answer = await self.sdk.models.list_async()
        return {"models": sorted(model.id for model in answer.data)}

    async def embed(self, model: str) -> JSON:
        answer = await self.sdk.embeddings.create_async(model=model, inputs=["one", "two"])
        return {"vectors": [each.embedding for each in answer.data]}

    def failure(self, error: Exception) -> JSON | None:
        if isinstance(error, errors.MistralError):
            return {"status": error.status_code, "retry_after": error.headers.get("retry-after")}
        return {"status": None} if isinstance(error, errors.NoResponseError) else None


CHAT_TOOLS = [
    {"type": "function", "function": {"name": name, "description": about, "parameters": schema}}
    for name, about, schema in TOOLS
]


def _grow(calls: list[JSON], pieces: list[JSON]) -> None:
    for piece in pieces:
        known = next((call for call in calls if call["index"] == piece.get("index", 0)), None)
        if known is None:
            calls.append(piece)
        else:
            known["function"]["arguments"] += piece["function"]["arguments"]


def _text(message: JSON) -> str:
    content = message["content"] or ""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def _thought(message: JSON) -> str:
    content = message["content"] if isinstance(message["content"], list) else []
    thoughts = [part["thinking"] for part in content if part["type"] == "thinking"]
    return "".join(piece["text"] for thought in thoughts for piece in thought)


def _spent(usage: Any) -> JSON:
    return {"input": usage.prompt_tokens, "output": usage.completion_tokens}
