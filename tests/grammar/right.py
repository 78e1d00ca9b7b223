"""One right stream of each protocol, in which everything happens that a translation may say."""

import json
from typing import Any

from tests.grammar.events import Events, named, numbered, plain

_ARGUMENTS = '{"city":"Köln"}'

# -- OpenAI chat, Mistral --------------------------------------------------------------------------------------------


def chunk(*choices: dict[str, Any], **members: Any) -> dict[str, Any]:
    """A chunk of chat."""
    shared = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "m"}
    return {**shared, "choices": list(choices), **members}


def choice(finish: str | None = None, index: int = 0, **delta: Any) -> dict[str, Any]:
    """What a chunk says of one choice."""
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


def call(index: int, call_id: str, name: str) -> list[dict[str, Any]]:
    """The first piece of a tool call."""
    return [{"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}]


def arguments(index: int, text: str) -> list[dict[str, Any]]:
    """A later piece of a tool call."""
    return [{"index": index, "function": {"arguments": text}}]


CHAT_USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 7,
    "total_tokens": 16,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
CHAT: Events = plain(
    chunk(choice(role="assistant", content=""), usage=None),
    chunk(choice(reasoning_content="hm"), usage=None),
    chunk(choice(content="Hello"), usage=None),
    chunk(choice(tool_calls=call(0, "call_1", "look")), usage=None),
    chunk(choice(tool_calls=arguments(0, _ARGUMENTS[:5])), usage=None),
    chunk(choice(tool_calls=arguments(0, _ARGUMENTS[5:])), usage=None),
    chunk(choice(tool_calls=call(1, "call_2", "look")), usage=None),
    chunk(choice(tool_calls=arguments(1, "{}")), usage=None),
    chunk(choice("tool_calls"), usage=None),
    chunk(usage=CHAT_USAGE),
    "[DONE]",
)
CHAT_ERROR = {"error": {"message": "broken", "type": "server_error", "param": None, "code": None}}

MISTRAL: Events = plain(
    chunk(choice(role="assistant", content="")),
    chunk(choice(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}])),
    chunk(choice(content=[{"type": "text", "text": "Hel"}])),
    chunk(choice(content="lo")),
    chunk(
        choice("tool_calls", tool_calls=[{"id": "JdDHRctXt", "function": {"name": "look", "arguments": _ARGUMENTS}}]),
        usage={"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16},
    ),
    "[DONE]",
)
MISTRAL_ERROR = {"object": "error", "message": "broken", "type": "internal_error", "param": None, "code": "1000"}

# -- Anthropic messages ----------------------------------------------------------------------------------------------


def block(index: int, kind: str, **members: Any) -> dict[str, Any]:
    """The start of a content block."""
    return {"type": "content_block_start", "index": index, "content_block": {"type": kind, **members}}


def delta(index: int, kind: str, **members: Any) -> dict[str, Any]:
    """A piece of a content block."""
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **members}}


def stop(index: int) -> dict[str, Any]:
    """The end of a content block."""
    return {"type": "content_block_stop", "index": index}


MESSAGES: Events = named(
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 1},
        },
    },
    {"type": "ping"},
    block(0, "thinking", thinking="", signature=""),
    delta(0, "thinking_delta", thinking="hm"),
    delta(0, "signature_delta", signature="c2ln"),
    stop(0),
    block(1, "redacted_thinking", data="c2VjcmV0"),
    stop(1),
    block(2, "text", text=""),
    delta(2, "text_delta", text="Hello"),
    delta(2, "citations_delta", citation={"type": "char_location"}),
    stop(2),
    block(3, "tool_use", id="toolu_1", name="look", input={}),
    delta(3, "input_json_delta", partial_json=""),
    delta(3, "input_json_delta", partial_json=_ARGUMENTS[:5]),
    delta(3, "input_json_delta", partial_json=_ARGUMENTS[5:]),
    stop(3),
    block(4, "tool_use", id="toolu_2", name="look", input={}),
    stop(4),
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"input_tokens": 9, "output_tokens": 7},
    },
    {"type": "message_stop"},
)
MESSAGES_ERROR = {"type": "error", "error": {"type": "api_error", "message": "broken"}}

# -- OpenAI responses ------------------------------------------------------------------------------------------------


def response(status: str, **members: Any) -> dict[str, Any]:
    """The response, as events tell it."""
    shared = {"id": "resp_1", "object": "response", "created_at": 1_700_000_000, "model": "m", "status": status}
    return {**shared, "error": None, "incomplete_details": None, "output": [], "usage": None, **members}


def of_item(kind: str, index: int, item: str, **members: Any) -> dict[str, Any]:
    """An event about something in an item."""
    return {"type": f"response.{kind}", "item_id": item, "output_index": index, **members}


def item(kind: str, index: int, value: dict[str, Any]) -> dict[str, Any]:
    """An event with an item."""
    return {"type": f"response.output_item.{kind}", "output_index": index, "item": value}


_SUMMARY = {"type": "summary_text", "text": "hmm"}
_TEXT = {"type": "output_text", "text": "Hello", "annotations": [{"type": "url_citation"}], "logprobs": []}
_REFUSAL = {"type": "refusal", "refusal": "no"}
_REASONING = {"id": "rs_1", "type": "reasoning", "summary": [_SUMMARY], "encrypted_content": "c2VhbA"}
_MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [_TEXT, _REFUSAL],
}
_CALL = {
    "id": "fc_1",
    "type": "function_call",
    "status": "completed",
    "call_id": "call_1",
    "name": "look",
    "arguments": _ARGUMENTS,
}
RESPONSE_USAGE = {"input_tokens": 9, "output_tokens": 7, "total_tokens": 16}
RESPONSES: Events = numbered(
    {"type": "response.created", "response": response("in_progress")},
    {"type": "response.in_progress", "response": response("in_progress")},
    item("added", 0, {"id": "rs_1", "type": "reasoning", "summary": []}),  # 2
    of_item("reasoning_summary_part.added", 0, "rs_1", summary_index=0, part={**_SUMMARY, "text": ""}),
    of_item("reasoning_summary_text.delta", 0, "rs_1", summary_index=0, delta="h"),
    of_item("reasoning_summary_text.delta", 0, "rs_1", summary_index=0, delta="mm"),
    of_item("reasoning_summary_text.done", 0, "rs_1", summary_index=0, text="hmm"),
    of_item("reasoning_summary_part.done", 0, "rs_1", summary_index=0, part=_SUMMARY),
    item("done", 0, _REASONING),
    item("added", 1, {**_MESSAGE, "status": "in_progress", "content": []}),  # 9
    of_item(
        "content_part.added", 1, "msg_1", content_index=0, part={"type": "output_text", "text": "", "annotations": []}
    ),
    of_item("output_text.delta", 1, "msg_1", content_index=0, delta="Hello", logprobs=[]),
    of_item(
        "output_text.annotation.added",
        1,
        "msg_1",
        content_index=0,
        annotation_index=0,
        annotation={"type": "url_citation"},
    ),
    of_item("output_text.done", 1, "msg_1", content_index=0, text="Hello", logprobs=[]),
    of_item("content_part.done", 1, "msg_1", content_index=0, part=_TEXT),
    of_item("content_part.added", 1, "msg_1", content_index=1, part={"type": "refusal", "refusal": ""}),  # 15
    of_item("refusal.delta", 1, "msg_1", content_index=1, delta="no"),
    of_item("refusal.done", 1, "msg_1", content_index=1, refusal="no"),
    of_item("content_part.done", 1, "msg_1", content_index=1, part=_REFUSAL),
    item("done", 1, _MESSAGE),
    item("added", 2, {**_CALL, "status": "in_progress", "arguments": ""}),  # 20
    of_item("function_call_arguments.delta", 2, "fc_1", delta=_ARGUMENTS[:5]),
    of_item("function_call_arguments.delta", 2, "fc_1", delta=_ARGUMENTS[5:]),
    of_item("function_call_arguments.done", 2, "fc_1", arguments=_ARGUMENTS, name="look"),
    item("done", 2, _CALL),
    {
        "type": "response.completed",
        "response": response("completed", output=[_REASONING, _MESSAGE, _CALL], usage=RESPONSE_USAGE),
    },
)
RESPONSES_ERROR = {"type": "error", "code": "server_error", "message": "broken", "param": None}
RESPONSES_FAILED = {
    "type": "response.failed",
    "response": response("failed", error={"code": "server_error", "message": "broken"}),
}

# -- Gemini ----------------------------------------------------------------------------------------------------------


def generated(*parts: dict[str, Any], finish: str | None = None, **members: Any) -> dict[str, Any]:
    """A chunk of generateContent."""
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "modelVersion": "m", "responseId": "r1", **members}


GEMINI_USAGE = {
    "promptTokenCount": 9,
    "candidatesTokenCount": 4,
    "thoughtsTokenCount": 3,
    "totalTokenCount": 16,
}
GEMINI: Events = plain(
    generated({"text": "hm", "thought": True}),
    generated(
        {"text": "Hello"}, usageMetadata={"promptTokenCount": 9, "candidatesTokenCount": 1, "totalTokenCount": 10}
    ),
    generated(
        {"functionCall": {"name": "look", "args": json.loads(_ARGUMENTS)}, "thoughtSignature": "c2ln"},
        {"functionCall": {"name": "look", "args": {}}},
    ),
    generated({"text": ""}, finish="STOP", usageMetadata=GEMINI_USAGE),
)
GEMINI_ERROR = {"error": {"code": 503, "message": "broken", "status": "UNAVAILABLE"}}

RIGHT: dict[str, Events] = {
    "openai": CHAT,
    "openai-responses": RESPONSES,
    "anthropic": MESSAGES,
    "gemini": GEMINI,
    "gemini-array": GEMINI,
    "mistral": MISTRAL,
}
