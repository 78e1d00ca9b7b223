"""The official google-genai SDK of Python."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Self

from google import genai
from google.genai import errors, types

from tests.clients.play import JSON, Client
from tests.providers.scenario import PNG, RESULTS, SCHEMA, TOOLS


class GenerateContent(Client):
    """`client.aio.models`."""

    name: ClassVar[str] = "python-google-genai"

    def __init__(self, url: str, key: str) -> None:
        super().__init__(url, key)
        self.sdk = genai.Client(api_key=key, http_options=types.HttpOptions(base_url=url))

    @staticmethod
    def version() -> str:
        return f"google-genai {genai.__version__}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.sdk.aio.aclose()
        self.sdk.close()

    async def _generate(self, *, stream: bool, model: str, contents: Any, **config: Any) -> tuple[list[Any], Any, Any]:
        """The parts, the word of the end, and the usage; a stream's parts are put behind each other."""
        asked = {"model": model, "contents": contents, "config": types.GenerateContentConfig(**config)}
        if not stream:
            answers = [await self.sdk.aio.models.generate_content(**asked)]
        else:
            answers = [chunk async for chunk in await self.sdk.aio.models.generate_content_stream(**asked)]
        parts: list[Any] = []
        finish = None
        for answer in answers:
            for candidate in answer.candidates or []:
                finish = candidate.finish_reason or finish
                parts += (candidate.content and candidate.content.parts) or []
        if finish is None:  # the SDK does not ask for one
            raise errors.APIError(0, {"error": {"message": "no finish reason"}})
        return parts, finish.value, answers[-1].usage_metadata

    async def say(
        self, model: str, prompt: str, *, system: str = "", image: bool = False, stream: bool = False
    ) -> JSON:
        contents: list[Any] = [prompt]
        if image:
            contents.append(types.Part.from_bytes(data=PNG, mime_type="image/png"))
        config = {"system_instruction": system} if system else {}
        parts, finish, usage = await self._generate(stream=stream, model=model, contents=contents, **config)
        return {"text": _text(parts), "finish": finish, **_spent(usage)}

    async def think(self, model: str, prompt: str, *, stream: bool) -> JSON:
        parts, _, usage = await self._generate(stream=stream, model=model, contents=prompt, thinking_config=THINKING)
        return {"text": _text(parts), "thought": _thought(parts), **_spent(usage)}

    async def use_tools(self, model: str, prompt: str, *, stream: bool = False, think: bool = False) -> JSON:
        contents = [types.Content(role="user", parts=[types.Part(text=prompt)])]
        config: JSON = {"tools": [types.Tool(function_declarations=DECLARATIONS)]}
        if think:
            config["thinking_config"] = THINKING
        parts, finish, _ = await self._generate(stream=stream, model=model, contents=contents, **config)
        calls = [part.function_call for part in parts if part.function_call]
        # What the SDK gives is sent back as it is, as its documentation has it.
        contents.append(types.Content(role="model", parts=parts))
        responses = [
            types.Part(
                function_response=types.FunctionResponse(
                    id=call.id, name=call.name, response={"result": RESULTS[call.name]}
                )
            )
            for call in calls
        ]
        contents.append(types.Content(role="user", parts=responses))
        last, _, _ = await self._generate(stream=stream, model=model, contents=contents, **config)
        found = [[call.name, call.args] for call in calls]
        return {"calls": found, "finish": finish, "text": _text(last), "thought": _thought(parts)}

    async def structure(self, model: str, prompt: str) -> JSON:
        config = {"response_mime_type": "application/json", "response_json_schema": SCHEMA}
        parts, _, _ = await self._generate(stream=False, model=model, contents=prompt, **config)
        return {"value": json.loads(_text(parts))}

    async def models(self) -> JSON:
        names = [str(model.name) async for model in await self.sdk.aio.models.list()]
        return {"models": sorted(name.removeprefix("models/") for name in names)}

    async def embed(self, model: str) -> JSON:
        answer = await self.sdk.aio.models.embed_content(model=model, contents=["one", "two"])
        return {"vectors": [each.values for each in answer.embeddings or []]}

    async def count(self, model: str, prompt: str) -> JSON:
        answer = await self.sdk.aio.models.count_tokens(model=model, contents=prompt)
        return {"tokens": answer.total_tokens}

    def failure(self, error: Exception) -> JSON | None:
        if isinstance(error, errors.APIError):
            headers = getattr(error.response, "headers", None) or {}
            return {"status": error.code or None, "retry_after": headers.get("retry-after")}
        return {"status": None} if isinstance(error, errors.UnknownApiResponseError) else None


THINKING = types.ThinkingConfig(include_thoughts=True, thinking_budget=1024)
DECLARATIONS = [
    types.FunctionDeclaration(name=name, description=about, parameters_json_schema=schema)
    for name, about, schema in TOOLS
]


def _text(parts: list[Any]) -> str:
    return "".join(part.text or "" for part in parts if not part.thought)


def _thought(parts: list[Any]) -> str:
    return "".join(part.text or "" for part in parts if part.thought)


def _spent(usage: Any) -> JSON:
    output = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
    return {"input": usage.prompt_token_count, "output": output}
