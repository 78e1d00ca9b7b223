"""The chat completions of OpenAI are a dialect as all are expected to be."""

import json

from llmproxy_core.testing import DialectConformance, Recorded, RecordedError, Says
from llmproxy_openai import OpenAIDialect
from tests.recordings import recordings

_PROVIDERS = ("openai", "compatible")
_CHATS = [it for it in recordings(protocol="chat") if it.provider in _PROVIDERS]


class TestOpenAIConforms(DialectConformance):
    dialect = OpenAIDialect()
    apis = ("openai.chat",)
    model = "gpt-4o"  # samples as the request says, and knows OpenAI's own advice
    says = frozenset(Says) - {
        Says.PREFIX,  # some servers' own; OpenAI has none
        Says.TOP_K,
        Says.TOOL_ERRORS,
        Says.TOOL_IMAGES,
        Says.SIGNATURES,
        Says.REDACTED,
        Says.ENCRYPTED,
        Says.THINKING_BUDGET,
        Says.FINISH_REFUSAL,
        Says.FINISH_ERROR,
        Says.CACHE_MARKS,
    }
    samples = [
        Recorded(
            api="openai.chat",
            request=it.request_body,
            reply=None if it.is_event_stream else it.response_body,
            stream=it.response_body if it.is_event_stream else None,
            name=str(it),
        )
        for it in _CHATS
        if it.response_status == 200
    ]
    errors = [
        RecordedError(it.response_status, it.response_body, it.response_headers)
        for it in _CHATS
        if it.response_status >= 400
    ]

    def asks_again(self, reply: bytes) -> bytes:
        message = json.loads(reply)["choices"][0]["message"]
        messages = [{"role": "user", "content": "hi"}, message]
        messages += [
            {"role": "tool", "tool_call_id": it["id"], "content": "x"} for it in message.get("tool_calls") or ()
        ]
        return json.dumps({"model": self.model, "messages": messages}).encode()
