"""
Claude Code's traffic: the shapes of its requests, and its loop of tools over the event stream.

As version 2.1 sends them: a system prompt in blocks, the first of which is its own bookkeeping, marks for the prompt
cache, reminders beside the results of tools, and everything the model said sent back as it came.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

import attrs
from aiohttp import ClientSession

from tests.providers import agents
from tests.providers.scenario import PNG
from tests.providers.server import CALLERS_KEY

JSON = dict[str, Any]

BETAS = (
    "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27,"
    "prompt-caching-scope-2026-01-05,effort-2025-11-24,a-beta-nobody-knows-2026-11-01"
)
HEADERS = {
    "accept": "application/json",
    "anthropic-beta": BETAS,
    "anthropic-dangerous-direct-browser-access": "true",
    "anthropic-version": "2023-06-01",
    "authorization": f"Bearer {CALLERS_KEY}",
    "content-type": "application/json",
    "user-agent": "claude-cli/2.1.197 (external, cli)",
    "x-app": "cli",
    "x-claude-code-session-id": "4a1b8c9e-0d6f-4a52-9f4d-0c5e6a7b8c9d",
    "x-stainless-lang": "js",
    "x-stainless-retry-count": "0",
}
MARK = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
SYSTEM = [
    {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.197.a1b; cc_entrypoint=cli; cch=00000;"},
    {"type": "text", "text": "You are Claude Code, Anthropic's official CLI for Claude.", **MARK},
    {"type": "text", "text": "Be concise. Größe zählt nicht.\n" * 400, **MARK},
]
REMINDER = "<system-reminder>\nThe list of tasks is empty.\n</system-reminder>"


def _tool(name: str, properties: JSON, *required: str, **more: object) -> JSON:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }
    return {"name": name, "description": f"The tool {name}.", "input_schema": schema, **more}


TEXT = {"type": "string"}
TOOLS = [
    _tool(
        "Bash",
        {
            "command": TEXT,
            "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": 600000},
            "description": TEXT,
            "run_in_background": {"type": "boolean", "default": False},
        },
        "command",
        eager_input_streaming=True,
    ),
    _tool("Read", {"file_path": TEXT, "offset": {"type": "integer", "minimum": 0}}, "file_path"),
    _tool("Edit", {"file_path": TEXT, "old_string": TEXT, "new_string": TEXT}, "file_path", "old_string", "new_string"),
    _tool(
        "TodoWrite",
        {
            "todos": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"content": {"type": "string", "minLength": 1}, "status": {"enum": ["a", "b"]}},
                    "required": ["content", "status"],
                    "additionalProperties": False,
                },
            }
        },
        "todos",
    ),
    _tool("mcp__browser__screenshot", {}, cache_control={"type": "ephemeral", "ttl": "1h"}),
]


@attrs.define
class Played:
    """What the agent sent, and what it saw."""

    sent: list[bytes] = attrs.field(factory=list)
    calls: list[tuple[str, Any]] = attrs.field(factory=list)
    thoughts: list[str] = attrs.field(factory=list)
    text: str = ""  # of the last answer
    stop: str = ""
    changed: list[str] = attrs.field(factory=list)  # what the proxy says it changed, one for each request
    streams: list[bytes] = attrs.field(factory=list)
    error: JSON | None = None  # the body of the answer that was none


def body(model: str, messages: list[JSON], **more: object) -> JSON:
    """A request of the agent's main loop."""
    return {
        "model": model,
        "messages": messages,
        "system": SYSTEM,
        "tools": TOOLS,
        "metadata": {"user_id": json.dumps({"device_id": "d1", "account_uuid": "", "session_id": "s1"})},
        "max_tokens": 32000,
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "medium"},
        "stream": True,
        **more,
    }


def task() -> list[JSON]:
    """What the user wants."""
    return [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": REMINDER},
                {"type": "text", "text": "Make the tests pass [claude_code]", **MARK},
            ],
        }
    ]


async def play(url: str, model: str, **more: object) -> Played:
    """The agent's work on its task, to its end or to the first answer that is an error."""
    played, messages = Played(), task()
    async with ClientSession() as session:
        while True:
            sent = json.dumps(body(model, messages, **more), ensure_ascii=False).encode()
            played.sent.append(sent)
            async with session.post(f"{url}/v1/messages?beta=true", data=sent, headers=HEADERS) as answer:
                played.changed.append(answer.headers.get("x-llmproxy-changed", ""))
                if answer.status != 200:
                    played.error = await answer.json()
                    return played
                stream = await answer.read()
            played.streams.append(stream)
            content, played.stop = read(stream)
            played.thoughts += [block["thinking"] for block in content if block["type"] == "thinking"]
            played.text = "".join(block["text"] for block in content if block["type"] == "text")
            calls = [block for block in content if block["type"] == "tool_use"]
            played.calls += [(call["name"], call["input"]) for call in calls]
            if played.stop != "tool_use":
                return played
            messages += [{"role": "assistant", "content": content}, {"role": "user", "content": _results(calls)}]


def _results(calls: Iterable[JSON]) -> list[JSON]:
    blocks: list[JSON] = []
    for call in calls:
        block: JSON = {"tool_use_id": call["id"], "type": "tool_result", "content": agents.RESULTS[call["name"]]}
        if call["name"] == agents.BASH.name:
            block["is_error"] = True
        if call["name"] == agents.LOOK.name:
            data = base64.b64encode(PNG).decode()
            source = {"type": "base64", "media_type": "image/png", "data": data}
            block["content"] = [{"type": "image", "source": source}]
        blocks.append(block)
    return [*blocks, {"type": "text", "text": REMINDER, **MARK}]


def read(stream: bytes) -> tuple[list[JSON], str]:
    """The content of a streamed message, and why it ended; "" when it did not."""
    content: list[JSON] = []
    stop = ""
    for event in _events(stream):
        match event["type"]:
            case "content_block_start":
                content.append({**event["content_block"], "_json": ""})
            case "content_block_delta":
                _grow(content[event["index"]], event["delta"])
            case "message_delta":
                stop = event["delta"]["stop_reason"]
            case "error":
                raise AssertionError(event)
            case _:
                pass
    for block in content:
        text = block.pop("_json")
        if block["type"] == "tool_use":
            block["input"] = json.loads(text or "{}")
    return content, stop


def _grow(block: JSON, delta: JSON) -> None:
    match delta["type"]:
        case "text_delta":
            block["text"] += delta["text"]
        case "thinking_delta":
            block["thinking"] += delta["thinking"]
        case "signature_delta":
            block["signature"] = delta["signature"]
        case "input_json_delta":
            block["_json"] += delta["partial_json"]
        case kind:
            raise AssertionError(kind)


def _events(stream: bytes) -> list[JSON]:
    return [
        json.loads(line.removeprefix("data:"))
        for line in stream.decode().splitlines()
        if line.startswith("data:") and line.removeprefix("data:").strip()
    ]
