"""The official openai SDK of Python: chat completions and responses."""

from __future__ import annotations

import base64
import json
from typing import Any, ClassVar, Self

import openai

from tests.clients.play import JSON, Client
from tests.providers.scenario import PNG, RESULTS, SCHEMA, TOOLS

IMAGE_URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


class _OpenAI(Client):
    lacks: ClassVar[frozenset[str]] = frozenset({"count"})

    def __init__(self, url: str, key: str) -> None:
        super().__init__(url, key)
        self.sdk = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)

    @staticmethod
    def version() -> str:
        return f"openai {openai.__version__}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.sdk.close()

    async def models(self) -> JSON:
        return {"models": sorted([model.id async for model in self.sdk.models.list()])}

    async def embed(self, model: str) -> JSON:
        answer = await self.sdk.embeddings.create(model=model, input=["one", "two"])
        return {"vectors": [each.embedding for each in answer.data]}

    def failure(self, error: Exception) -> JSON | None:
        if isinstance(error, openai.APIStatusError):
            return {"status": error.status_code, "retry_after": error.response.headers.get("retry-after")}
        return {"status": None} if isinstance(error, openai.OpenAIError) else None


class ChatCompletions(_OpenAI):
    """`client.chat.completions`."""

    name: ClassVar[str] = "python-openai-chat"

    async def _create(self, *, stream: bool, **asked: Any) -> tuple[Any, Any, Any]:
        """The message, the word of the end, and the usage; a stream is put together as the SDK does it."""
        if not stream:
            answer = await self.sdk.chat.completions.create(**asked)
            return answer.choices[0].message, answer.choices[0].finish_reason, answer.usage
        final: Any
        async with self.sdk.chat.completions.stream(**asked, stream_options={"include_usage": True}) as events:
            async for _ in events:
                pass
            final = await events.get_final_completion()
        return final.choices[0].message, final.choices[0].finish_reason, final.usage

    async def say(
        self, model: str, prompt: str, *, system: str = "", image: bool = False, stream: bool = False
    ) -> JSON:
        content: Any = prompt
        if image:
            content = [
                {"type": "text", "text": prompt},
                {"type": "image_url", "image_url": {"url": IMAGE_URL, "detail": "low"}},
            ]
        messages: list[Any] = [{"role": "user", "content": content}]
        if system:
            messages.insert(0, {"role": "system", "content": system})
        message, finish, usage = await self._create(stream=stream, model=model, messages=messages)
        return {"text": message.content, "finish": finish, **_spent(usage)}

    async def think(self, model: str, prompt: str, *, stream: bool) -> JSON:
        message, _, usage = await self._create(
            stream=stream, model=model, messages=[{"role": "user", "content": prompt}], reasoning_effort="low"
        )
        return {"text": message.content, "thought": _thought(message), **_spent(usage)}

    async def use_tools(self, model: str, prompt: str, *, stream: bool = False, think: bool = False) -> JSON:
        messages: list[Any] = [{"role": "user", "content": prompt}]
        asked: JSON = {"model": model, "tools": CHAT_TOOLS}
        if think:
            asked["reasoning_effort"] = "low"
        message, finish, _ = await self._create(stream=stream, messages=messages, **asked)
        # What the SDK gives is sent back as it is, as its documentation has it.
        messages.append(_sendable(message))
        for call in message.tool_calls or []:
            result = RESULTS[call.function.name]
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
        last, _, _ = await self._create(stream=stream, messages=messages, **asked)
        calls = [[call.function.name, json.loads(call.function.arguments)] for call in message.tool_calls or []]
        return {"calls": calls, "finish": finish, "text": last.content, "thought": _thought(message)}

    async def structure(self, model: str, prompt: str) -> JSON:
        form = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}
        messages = [{"role": "user", "content": prompt}]
        message, _, _ = await self._create(stream=False, model=model, messages=messages, response_format=form)
        return {"value": json.loads(message.content)}


def _sendable(message: Any) -> JSON:
    """The message as a request takes it: what the SDK alone knows (`parsed`) is left out."""
    written: JSON = message.model_dump(exclude_none=True)
    written.pop("parsed", None)
    for call in written.get("tool_calls", []):
        call["function"].pop("parsed_arguments", None)
        call.pop("index", None)
    return written


def _thought(message: Any) -> str:
    """What compatible servers send besides the official members."""
    return str(getattr(message, "reasoning_content", None) or "")


def _spent(usage: Any) -> JSON:
    return {"input": usage.prompt_tokens, "output": usage.completion_tokens}


CHAT_TOOLS = [
    {"type": "function", "function": {"name": name, "description": about, "parameters": schema, "strict": True}}
    for name, about, schema in TOOLS
]


class Responses(_OpenAI):
    """`client.responses`."""

    name: ClassVar[str] = "python-openai-responses"
    lacks: ClassVar[frozenset[str]] = frozenset({"embeddings"})  # those of ChatCompletions

    async def _create(self, *, stream: bool, **asked: Any) -> Any:
        if not stream:
            return await self.sdk.responses.create(**asked, store=False)
        async with self.sdk.responses.stream(**asked, store=False) as events:
            async for event in events:
                if event.type in ("error", "response.failed"):
                    raise openai.APIError("the stream failed", request=None, body=None)  # type: ignore[arg-type]
            return await events.get_final_response()

    async def say(
        self, model: str, prompt: str, *, system: str = "", image: bool = False, stream: bool = False
    ) -> JSON:
        content: list[JSON] = [{"type": "input_text", "text": prompt}]
        if image:
            content.append({"type": "input_image", "image_url": IMAGE_URL, "detail": "low"})
        more = {"instructions": system} if system else {}
        answer = await self._create(stream=stream, model=model, input=[{"role": "user", "content": content}], **more)
        return {"text": answer.output_text, "finish": answer.status, **_used(answer.usage)}

    async def think(self, model: str, prompt: str, *, stream: bool) -> JSON:
        answer = await self._create(stream=stream, model=model, input=prompt, **THINKING)
        return {"text": answer.output_text, "thought": _summary(answer), **_used(answer.usage)}

    async def use_tools(self, model: str, prompt: str, *, stream: bool = False, think: bool = False) -> JSON:
        items: list[Any] = [{"role": "user", "content": prompt}]
        asked: JSON = {"model": model, "tools": RESPONSES_TOOLS, **(THINKING if think else {})}
        answer = await self._create(stream=stream, input=items, **asked)
        calls = [item for item in answer.output if item.type == "function_call"]
        items += [_item(item) for item in answer.output]
        for call in calls:
            items.append({"type": "function_call_output", "call_id": call.call_id, "output": RESULTS[call.name]})
        last = await self._create(stream=stream, input=items, **asked)
        return {
            "calls": [[call.name, json.loads(call.arguments)] for call in calls],
            "finish": answer.status,
            "text": last.output_text,
            "thought": _summary(answer),
        }

    async def structure(self, model: str, prompt: str) -> JSON:
        form = {"type": "json_schema", "name": "city", "schema": SCHEMA, "strict": True}
        answer = await self._create(stream=False, model=model, input=prompt, text={"format": form})
        return {"value": json.loads(answer.output_text)}

    async def count(self, model: str, prompt: str) -> JSON:
        answer = await self.sdk.responses.input_tokens.count(model=model, input=prompt)
        return {"tokens": answer.input_tokens}


def _item(item: Any) -> JSON:
    """The item as a request takes it: what the SDK alone knows (`parsed`, `parsed_arguments`) is left out."""
    written: JSON = item.model_dump(exclude_none=True)
    written.pop("parsed_arguments", None)
    for part in written.get("content") or []:
        part.pop("parsed", None)
    return written


def _summary(answer: Any) -> str:
    items = [item for item in answer.output if item.type == "reasoning"]
    return "".join(part.text for item in items for part in item.summary)


def _used(usage: Any) -> JSON:
    return {"input": usage.input_tokens, "output": usage.output_tokens}


THINKING: JSON = {"reasoning": {"effort": "low", "summary": "auto"}, "include": ["reasoning.encrypted_content"]}
RESPONSES_TOOLS = [
    {"type": "function", "name": name, "description": about, "parameters": schema, "strict": True}
    for name, about, schema in TOOLS
]
