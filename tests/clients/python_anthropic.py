"""The official anthropic SDK of Python."""

from __future__ import annotations

import base64
import json
from typing import Any, ClassVar, Self

import anthropic

from tests.clients.play import JSON, Client
from tests.providers.scenario import PNG, RESULTS, SCHEMA, TOOLS

MAX_TOKENS = 4096


class Messages(Client):
    """`client.messages`."""

    name: ClassVar[str] = "python-anthropic"
    lacks: ClassVar[frozenset[str]] = frozenset({"embeddings"})

    def __init__(self, url: str, key: str) -> None:
        super().__init__(url, key)
        self.sdk = anthropic.AsyncAnthropic(base_url=url, api_key=key, max_retries=0)

    @staticmethod
    def version() -> str:
        return f"anthropic {anthropic.__version__}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.sdk.close()

    async def _create(self, *, stream: bool, **asked: Any) -> Any:
        if not stream:
            return await self.sdk.messages.create(**asked, max_tokens=MAX_TOKENS)
        async with self.sdk.messages.stream(**asked, max_tokens=MAX_TOKENS) as events:
            ended = False
            async for event in events:
                ended = event.type == "message_stop"
            if not ended:  # the SDK gives what came so far, and leaves it to the caller to see that no end came
                raise anthropic.APIConnectionError(message="no message_stop", request=None)  # type: ignore[arg-type]
            return await events.get_final_message()

    async def say(
        self, model: str, prompt: str, *, system: str = "", image: bool = False, stream: bool = False
    ) -> JSON:
        content: list[JSON] = [{"type": "text", "text": prompt}]
        if image:
            data = base64.b64encode(PNG).decode()
            content.append({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}})
        more = {"system": system} if system else {}
        message = await self._create(
            stream=stream, model=model, messages=[{"role": "user", "content": content}], **more
        )
        return {"text": _text(message), "finish": message.stop_reason, **_spent(message.usage)}

    async def think(self, model: str, prompt: str, *, stream: bool) -> JSON:
        messages = [{"role": "user", "content": prompt}]
        message = await self._create(stream=stream, model=model, messages=messages, thinking=THINKING)
        return {"text": _text(message), "thought": _thought(message), **_spent(message.usage)}

    async def use_tools(self, model: str, prompt: str, *, stream: bool = False, think: bool = False) -> JSON:
        messages: list[Any] = [{"role": "user", "content": prompt}]
        asked: JSON = {"model": model, "tools": TOOL_PARAMS, **({"thinking": THINKING} if think else {})}
        message = await self._create(stream=stream, messages=messages, **asked)
        calls = [block for block in message.content if block.type == "tool_use"]
        # What the SDK gives is sent back as it is, as its documentation has it.
        messages.append({"role": "assistant", "content": message.content})
        results = [{"type": "tool_result", "tool_use_id": call.id, "content": RESULTS[call.name]} for call in calls]
        messages.append({"role": "user", "content": results})
        last = await self._create(stream=stream, messages=messages, **asked)
        return {
            "calls": [[call.name, call.input] for call in calls],
            "finish": message.stop_reason,
            "text": _text(last),
            "thought": _thought(message),
        }

    async def structure(self, model: str, prompt: str) -> JSON:
        form = {"format": {"type": "json_schema", "schema": SCHEMA}}
        messages = [{"role": "user", "content": prompt}]
        message = await self._create(stream=False, model=model, messages=messages, output_config=form)
        return {"value": json.loads(_text(message))}

    async def models(self) -> JSON:
        return {"models": sorted([model.id async for model in self.sdk.models.list()])}

    async def count(self, model: str, prompt: str) -> JSON:
        answer = await self.sdk.messages.count_tokens(model=model, messages=[{"role": "user", "content": prompt}])
        return {"tokens": answer.input_tokens}

    def failure(self, error: Exception) -> JSON | None:
        if isinstance(error, anthropic.APIStatusError):
            return {"status": error.status_code, "retry_after": error.response.headers.get("retry-after")}
        return {"status": None} if isinstance(error, anthropic.AnthropicError) else None


THINKING = {"type": "enabled", "budget_tokens": 1024}
TOOL_PARAMS = [{"name": name, "description": about, "input_schema": schema} for name, about, schema in TOOLS]


def _text(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def _thought(message: Any) -> str:
    return "".join(block.thinking for block in message.content if block.type == "thinking")


def _spent(usage: Any) -> JSON:
    """All input, as `input_tokens` leaves out what the cache had."""
    cached = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    return {"input": usage.input_tokens + cached, "output": usage.output_tokens}
