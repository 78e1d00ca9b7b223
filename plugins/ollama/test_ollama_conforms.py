"""What Ollama's dialect promises."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

import attrs
from llmproxy_ollama import request
from llmproxy_ollama.dialect import OllamaDialect

from llmproxy_core import Api, Translation
from llmproxy_core.chat import ChatRequest, JSONText, ToolChoice
from llmproxy_core.testing import DialectConformance, Recorded, RecordedError
from llmproxy_core.wire import (
    STRING,
    Changes,
    Form,
    Group,
    Members,
    Values,
    Wire,
    encode,
    read_request,
    write_request,
)

# Traffic in the form that the documentation of the API gives, shortened; not recorded.
REQUEST = b"""{"model": "qwen3", "think": true, "keep_alive": "5m", "options": {"temperature": 0.50, "num_ctx": 8192},
  "messages": [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is in it?", "images": ["iVBORw0KGgoAAAANSUhEUg=="]},
    {"role": "assistant", "content": "A \\u2026 sign.", "thinking": "Look.", "at": 17},
    {"role": "user", "content": "Thanks"}
]}"""
REPLY = b"""{"model": "qwen3", "created_at": "2025-10-17T23:14:07.414671123Z",
  "message": {"role": "assistant", "content": "A sign.", "thinking": "Let me look."},
  "done": true, "done_reason": "stop", "total_duration": 174560334, "load_duration": 101397084,
  "prompt_eval_count": 31, "prompt_eval_duration": 13074791, "prompt_eval_cached_count": 20, "eval_count": 4}"""
HEAD = b'{"model":"qwen3","created_at":"2025-10-26T17:15:24.097767-07:00",'
STREAM = b"\n".join(
    [
        HEAD + b'"message":{"role":"assistant","content":"","thinking":"Hm"},"done":false}',
        HEAD + b'"message":{"role":"assistant","content":"Light "},"done":false}',
        HEAD
        + b'"message":{"role":"assistant","content":"it: \\"error\\": \\"done\\":true \xf0\x9f\x9a\xb2"},"done":false}',
        HEAD + b'"message":{"role":"assistant","content":""},"done":true,"done_reason":"length","total_duration":48,'
        b'"prompt_eval_count":26,"eval_count":28}',
        b"",
    ]
)
CALLS = b"\n".join(
    [
        HEAD + b'"message":{"role":"assistant","content":"","tool_calls":[{"id":"call_a","function":{"index":0,'
        b'"name":"weather","arguments":{"city":"K\xc3\xb6ln","days":1.0}}},{"function":{"name":"time","arguments":{}}}]},'
        b'"done":false}',
        HEAD + b'"message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","eval_count":2}',
        b"",
    ]
)
BROKEN = HEAD + b'"message":{"role":"assistant","content":"Yes"},"done":false}\n{"error":"the runner has stopped"}\n'
REFUSED = b'{"error":"model \'nobody\' not found"}'
CALLING = b"""{"model": "qwen3", "stream": false, "tools": [
    {"type": "function", "function": {"name": "weather", "strange": 1, "parameters": {"type": "object"}}}],
  "messages": [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": "", "tool_calls": [{"function": {"index": 0, "name": "weather",
      "arguments": {"city": "Bonn", "days": 1.0}}}, {"function": {"name": "weather", "arguments": {}}}]},
    {"role": "tool", "content": "Rain", "tool_name": "weather"},
    {"role": "tool", "content": "Sun", "tool_name": "weather"}
]}"""
CALLED = b"""{"model": "qwen3", "created_at": "2025-10-17T23:14:07Z", "message": {"role": "assistant", "content": "",
  "tool_calls": [{"id": "call_a", "function": {"index": 0, "name": "weather", "arguments": {"city": "Bonn"}}}]},
  "done": true, "done_reason": "stop", "prompt_eval_count": 31, "eval_count": 4}"""

SAYS = (
    *("system", "system_anywhere", "image_data", "reasoning", "past_reasoning", "max_output_tokens", "temperature"),
    *("top_p", "top_k", "frequency_penalty", "presence_penalty", "seed", "stop", "logprobs", "json_object"),
    *("json_schema", "effort", "cached_usage", "finish_length"),
)


def wrong(stream: bytes, *, failed: bool) -> Sequence[str]:
    """What is wrong with a stream, told without the code that writes it."""
    lines = stream.split(b"\n")
    if lines.pop():
        return ["the last line has no end"]
    found = []
    for number, line in enumerate(map(json.loads, lines), 1):
        is_last = number == len(lines)
        if failed and is_last:
            found += [] if isinstance(line.get("error"), str) else [f"no error: {line}"]
            continue
        if line["message"]["role"] != "assistant" or not isinstance(line["message"]["content"], str):
            found.append(f"line {number} has no message: {line}")
        if line["done"] is not is_last or ("done_reason" in line) is not is_last:
            found.append(f"line {number} of {len(lines)} is done={line['done']}")
        for call in line["message"].get("tool_calls", []):
            found += [] if isinstance(call["function"]["arguments"], dict) else [f"arguments: {call}"]
    return found


class TestOllama(DialectConformance):
    """What every dialect must do, for what this protocol can say."""

    dialect = OllamaDialect()
    says: ClassVar[Collection[str]] = SAYS
    samples = (
        Recorded(api="ollama.chat", request=REQUEST, reply=REPLY, stream=STREAM, name="thinking"),
        Recorded(api="ollama.chat", request=CALLING, reply=CALLED, stream=CALLS, name="calls"),
        Recorded(api="ollama.chat", stream=BROKEN, name="a broken stream"),
    )
    errors = (RecordedError(404, REFUSED), RecordedError(500, b'{"error": "out of memory", "strange": 1}'))

    def grammar(self, api: Api, stream: bytes, *, failed: bool) -> Sequence[str]:
        return wrong(stream, failed=failed)


# -- with tools --------------------------------------------------------------------------------------------------

# The word `tools` wants a `tool_choice` too, which Ollama does not have. With one that is made up for these tests, all
# that is promised of calls is tried.


def _read_choice(members: Members, wire: Wire) -> Values:
    tools = next(group for group in request.FORM if "tools" in group.fields).read(members, wire)
    mode = members.take("made_up_choice", STRING)
    return tools | ({"tool_choice": ToolChoice("required" if mode == "required" else "none")} if mode else {})


def _write_choice(chat: ChatRequest, wire: Wire, before: Mapping[str, JSONText]) -> Changes:
    group = next(group for group in request.FORM if "tools" in group.fields)
    choice = chat.tool_choice
    if choice is None or choice.mode not in {"none", "required"}:
        return group.write(chat, wire, before)
    return dict(group.write(attrs.evolve(chat, tool_choice=None), wire, before)) | {
        "made_up_choice": encode(choice.mode)
    }


FORM: Form = tuple(
    Group(group.fields, _read_choice, _write_choice) if "tools" in group.fields else group for group in request.FORM
)


class OllamaWithChoice(OllamaDialect):
    def read_chat(self, api: Api, body: bytes) -> ChatRequest:
        return read_request(api.form, FORM, body)

    def write_chat(self, api: Api, chat: ChatRequest, translation: Translation | None = None) -> bytes:
        return write_request(api.form, FORM, chat, translation)


class TestOllamaWithTools(TestOllama):
    dialect = OllamaWithChoice()
    says = (*SAYS, "tools", "parallel_calls")
