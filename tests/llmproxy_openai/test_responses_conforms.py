"""The dialect of the Responses API, held to what every dialect must do."""

import json

from llmproxy_core.testing import DialectConformance, Recorded
from llmproxy_openai.responses import ResponsesDialect
from tests.recordings import Recording, recordings


def _sample(recording: Recording) -> Recorded:
    answer = recording.response_body
    return Recorded(
        api="openai-responses.create",
        request=recording.request_body,
        reply=None if recording.stream else answer,
        stream=answer if recording.stream else None,
        name=str(recording),
    )


class TestResponsesConform(DialectConformance):
    dialect = ResponsesDialect()
    says = frozenset(
        {
            "system",
            "system_anywhere",
            "developer",
            "image_urls",
            "image_data",
            "documents",
            "cache_marks",
            "tools",
            "named_tool",
            "allowed_tools",
            "parallel_calls",
            "parallel_tool_calls",
            "strict_tools",
            "tool_images",
            "reasoning",
            "past_reasoning",
            "encrypted",
            "carried_signatures",
            "max_output_tokens",
            "temperature",
            "top_p",
            "logprobs",
            "json_object",
            "json_schema",
            "strict_schema",
            "effort",
            "verbosity",
            "user",
            "metadata",
            "service_tier",
            "store",
            "cache_key",
            "refusals",
            "citations",
            "cached_usage",
            "cache_write_usage",
            "reasoning_usage",
            "finish_length",
            "finish_filter",
        }
    )
    samples = tuple(
        _sample(each)
        for each in recordings()
        if each.request_path.endswith("/responses") and each.response_status == 200
    )

    def asks_again(self, reply: bytes) -> bytes:
        """What was put out is put in again."""
        said = {"role": "user", "content": "And then?"}
        return json.dumps({"model": "any", "input": [*json.loads(reply)["output"], said]}).encode()
