"""Mistral's protocol is a dialect as all are expected to be."""

import json

from llmproxy_mistral import MistralDialect

from llmproxy_core.testing import DialectConformance, Recorded, RecordedError, Says
from tests.recordings import recordings

_CHATS = recordings(provider="mistral", protocol="chat")


class TestMistralConforms(DialectConformance):
    dialect = MistralDialect()
    model = "mistral-large-latest"
    says = frozenset(Says) - {
        Says.DEVELOPER,
        Says.DOCUMENTS,
        Says.AUDIO,
        Says.CACHE_MARKS,
        Says.ALLOWED_TOOLS,
        Says.TOOL_ERRORS,
        Says.TOOL_IMAGES,
        Says.REDACTED,
        Says.ENCRYPTED,
        Says.CALL_SIGNATURES,
        Says.LOGIT_BIAS,
        Says.THINKING_BUDGET,
        Says.VERBOSITY,
        Says.USER,
        Says.STORE,
        Says.REFUSALS,
        Says.CITATIONS,
        Says.FINISH_FILTER,
        Says.FINISH_REFUSAL,
    }
    samples = [
        Recorded(
            api="mistral.chat",
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
            {"role": "tool", "tool_call_id": it["id"], "name": it["function"]["name"], "content": "x"}
            for it in message.get("tool_calls") or ()
        ]
        return json.dumps({"model": self.model, "messages": messages}).encode()
