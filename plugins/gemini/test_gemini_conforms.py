"""The dialect, held to what every dialect must do."""

import json
from collections.abc import Iterable

from llmproxy_gemini import GeminiDialect

from llmproxy_core.testing import DialectConformance, Recorded, RecordedError
from tests.recordings import recordings

_GENERATE = frozenset(
    {
        "system",
        "image_data",
        "image_urls",
        "documents",
        "audio",
        "tools",
        "named_tool",
        "allowed_tools",
        "parallel_calls",
        "tool_errors",
        "reasoning",
        "signatures",
        "call_signatures",
        "past_reasoning",
        "carried_signatures",
        "max_output_tokens",
        "temperature",
        "top_p",
        "top_k",
        "frequency_penalty",
        "presence_penalty",
        "seed",
        "stop",
        "n",
        "logprobs",
        "json_object",
        "json_schema",
        "citations",
        "cached_usage",
        "reasoning_usage",
        "finish_length",
        "finish_filter",
        "finish_error",
    }
)


def _samples() -> Iterable[Recorded]:
    for each in recordings(provider="gemini"):
        if each.response_status != 200 or each.protocol not in {"generate", "streamGenerate"}:
            continue
        is_array = each.protocol == "streamGenerate" and "alt=sse" not in each.request_path
        if each.protocol == "generate":
            yield Recorded(api="gemini.generate", request=each.request_body, reply=each.response_body, name=each.name)
        elif is_array:
            yield Recorded(
                api="gemini.stream_array", request=each.request_body, stream=each.response_body, name=each.name
            )
        else:
            yield Recorded(api="gemini.stream", request=each.request_body, stream=each.response_body, name=each.name)


def _errors() -> Iterable[RecordedError]:
    for each in recordings(provider="gemini"):
        if each.response_status >= 400:
            yield RecordedError(each.response_status, each.response_body, each.response_headers)


class TestGemini3(DialectConformance):
    """Models that take levels of thinking, and pictures in results."""

    dialect = GeminiDialect()
    model = "gemini-3-flash-preview"
    says = _GENERATE | {"effort", "tool_images"}
    apis = ("gemini.generate", "gemini.stream", "gemini.stream_array")
    samples = tuple(_samples())
    errors = tuple(_errors())

    def asks_again(self, reply: bytes) -> bytes:
        content = json.loads(reply)["candidates"][0]["content"]
        contents = [{"role": "user", "parts": [{"text": "Hello"}]}, content]
        return json.dumps({"contents": [*contents, {"role": "user", "parts": [{"text": "Go on"}]}]}).encode()


class TestGemini25(DialectConformance):
    """Models that take budgets of thinking."""

    dialect = GeminiDialect()
    model = "gemini-2.5-pro"
    says = _GENERATE | {"thinking_budget"}
    apis = ("gemini.generate", "gemini.stream", "gemini.stream_array")
    examples = 20
