"""
Codex's traffic: the shapes of its requests, and its loop of tools over the event stream.

As version 0.169 sends them: nothing is stored, encrypted reasoning comes back, files are changed by a tool that takes
a text in a grammar, and items go back without their ids.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from typing import Any

from aiohttp import ClientSession

from tests.clients.claude_code import Played
from tests.providers import agents
from tests.providers.scenario import PNG
from tests.providers.server import CALLERS_KEY

JSON = dict[str, Any]

HEADERS = {
    "accept": "text/event-stream",
    "authorization": f"Bearer {CALLERS_KEY}",
    "content-type": "application/json",
    "originator": "codex_cli_rs",
    "session-id": "019a-1",
    "thread-id": "019a-1",
    "user-agent": "codex_cli_rs/0.169.0 (Debian 13.0.0; x86_64) xterm",
    "x-client-request-id": "019a-1",
    "x-codex-turn-metadata": "{}",
}
INSTRUCTIONS = "You are Codex, a coding agent based on GPT-5.\n" + "Größe zählt nicht.\n" * 400
GRAMMAR = 'start: begin_patch hunk+ end_patch\nbegin_patch: "*** Begin Patch" LF\n%import common.LF\n'
PATCH_TOOL: JSON = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edit files. This is a FREEFORM tool, so do not wrap the patch in JSON.",
    "format": {"type": "grammar", "syntax": "lark", "definition": GRAMMAR},
}
SEARCH_TOOL: JSON = {"type": "web_search", "external_web_access": False}


def _function(name: str, properties: JSON, *required: str) -> JSON:
    schema = {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}
    return {"type": "function", "name": name, "description": f"The tool {name}.", "strict": False, "parameters": schema}


TEXT = {"type": "string"}
FUNCTIONS = [
    _function("exec_command", {"cmd": TEXT, "yield_time_ms": {"type": "number"}, "workdir": TEXT}, "cmd"),
    _function("update_plan", {"plan": {"type": "array", "items": {"type": "object", "properties": {}}}}, "plan"),
    _function("view_image", {"path": TEXT}, "path"),
]


def body(model: str, items: Sequence[JSON], **more: object) -> JSON:
    """A request of the agent's main loop."""
    return {
        "model": model,
        "instructions": INSTRUCTIONS,
        "input": items,
        "tools": [*FUNCTIONS, PATCH_TOOL],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "019a-1",
        "client_metadata": {"x-codex-installation-id": "i1"},
        **more,
    }


def task() -> list[JSON]:
    """What the user wants, behind what the agent says of its surroundings."""

    def said(role: str, text: str) -> JSON:
        return {"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]}

    return [
        said("developer", "<permissions instructions>Nothing is allowed.</permissions instructions>"),
        said("user", "<environment_context>\n  <cwd>/repo</cwd>\n</environment_context>"),
        said("user", "Make the tests pass [codex]"),
    ]


async def play(url: str, model: str, **more: object) -> Played:
    """The agent's work on its task, to its end or to the first answer that is an error."""
    played, items = Played(), task()
    async with ClientSession() as session:
        while True:
            sent = json.dumps(body(model, items, **more), ensure_ascii=False).encode()
            played.sent.append(sent)
            async with session.post(f"{url}/v1/responses", data=sent, headers=HEADERS) as answer:
                played.changed.append(answer.headers.get("x-llmproxy-changed", ""))
                if answer.status != 200:
                    played.error = await answer.json()
                    return played
                stream = await answer.read()
            played.streams.append(stream)
            output, played.stop = read(stream)
            texts = [part["text"] for item in output if item["type"] == "message" for part in item["content"]]
            played.text = "".join(texts)
            played.thoughts += [
                part["text"] for item in output if item["type"] == "reasoning" for part in item["summary"]
            ]
            calls = [item for item in output if item["type"] in ("function_call", "custom_tool_call")]
            played.calls += [(call["name"], _given(call)) for call in calls]
            if not calls:
                return played
            items += [*map(_echo, output), *_results(calls)]


def _given(call: JSON) -> Any:
    return call["input"] if call["type"] == "custom_tool_call" else json.loads(call["arguments"])


def _echo(item: JSON) -> JSON:
    """*item* as the agent sends it back."""
    kept = {name: value for name, value in item.items() if name not in ("id", "status")}
    if item["type"] == "message":
        kept["content"] = [{"type": part["type"], "text": part["text"]} for part in item["content"]]
    return kept


def _results(calls: Iterable[JSON]) -> list[JSON]:
    items: list[JSON] = []
    for call in calls:
        output: Any = agents.RESULTS[call["name"]]
        if call["name"] == agents.VIEW.name:
            url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
            output = [{"type": "input_image", "image_url": url}]
        kind = "function_call_output" if call["type"] == "function_call" else "custom_tool_call_output"
        items.append({"type": kind, "call_id": call["call_id"], "output": output})
    return items


def read(stream: bytes) -> tuple[list[JSON], str]:
    """
    The items of a streamed response, and its status; "" when it did not end.

    The agent takes the items as they are done, not from the response at the end.
    """
    output: list[JSON] = []
    status = ""
    for line in stream.decode().splitlines():
        if not line.startswith("data:"):
            continue
        event = json.loads(line.removeprefix("data:"))
        match event["type"]:
            case "response.output_item.done":
                output.append(event["item"])
            case "response.completed" | "response.incomplete":
                status = event["response"]["status"]
            case "response.failed" | "error":
                raise AssertionError(event)
            case _:
                pass
    return output, status
