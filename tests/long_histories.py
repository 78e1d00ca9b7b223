"""Requests that are long in ways in which readers and writers search: for each client's protocol, of any size."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmproxy_core import Carried, seal

Json = dict[str, Any]
Make = Callable[[int], Json]

_ANOTHERS = seal(Carried("anthropic", "signature"))
_GEMINIS = seal(Carried("gemini", "signature"))
_LONG = "x" * 1_000
"""A text that is so many times as long as there are calls is searched in vain for each of them, or not."""


def _between(items: Sequence[Json], other: Json) -> list[Json]:
    """*items*, *other* behind each of them."""
    return [each for item in items for each in (item, other)]


# -- OpenAI and Mistral ------------------------------------------------------------------------------------------------


def _chat(*messages: Json, **members: Any) -> Json:
    return {"model": "M", "max_tokens": 10, "messages": [_USER, *messages], **members}


_USER: Json = {"role": "user", "content": "a"}


def _chat_calls(count: int, *, has_ids: bool = True) -> list[Json]:
    return [
        {
            "id": f"c{number}" if has_ids else "",
            "type": "function",
            "function": {"name": f"f{number}", "arguments": "{}"},
        }
        for number in range(count)
    ]


def _chat_turn(calls: Sequence[Json], said: str | None = None) -> Json:
    return {"role": "assistant", "content": said, "tool_calls": list(calls)}


def _chat_results(count: int, *, has_ids: bool = True) -> list[Json]:
    """The last first."""
    return [
        {"role": "tool", "tool_call_id": f"c{number}", "content": "x"}
        if has_ids
        else {"role": "tool", "tool_call_id": "", "name": f"f{number}", "content": "x"}
        for number in reversed(range(count))
    ]


def _chat_tools(count: int) -> Json:
    functions = [{"name": f"f{number}"} for number in range(count)]
    tools = [{"type": "function", "function": {**each, "parameters": {"type": "object"}}} for each in functions]
    allowed = [{"type": "function", "function": each} for each in reversed(functions)]
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": allowed}}
    return _chat(tools=tools, tool_choice=choice)


CHAT: Mapping[str, Make] = {
    "the last call's result first": lambda n: _chat(_chat_turn(_chat_calls(n)), *_chat_results(n)),
    "calls without ids": lambda n: _chat(
        _chat_turn(_chat_calls(n, has_ids=False)), *_chat_results(n, has_ids=False), _USER
    ),
    "all results at the end": lambda n: _chat(
        *_between([_chat_turn([call]) for call in _chat_calls(n)], _USER), *_chat_results(n)
    ),
    "words between results": lambda n: _chat(_chat_turn(_chat_calls(n)), *_between(_chat_results(n), _USER)),
    "a long text before calls": lambda n: _chat(_chat_turn(_chat_calls(n), _LONG * n), *_chat_results(n)),
    "all tools allowed": _chat_tools,
}
_OPENAI: Mapping[str, Make] = {
    "sealed thinking": lambda n: _chat(
        {
            "role": "assistant",
            "content": "x",
            "reasoning_details": [{"type": "reasoning.text", "text": "x", "signature": _ANOTHERS}] * n,
        },
        _USER,
    ),
}
_MISTRAL: Mapping[str, Make] = {
    "thoughts before a seal": lambda n: _chat(
        {
            "role": "assistant",
            "content": [
                *[{"type": "thinking", "thinking": [{"type": "text", "text": "x"}]}] * n,
                {"type": "thinking", "thinking": [{"type": "text", "text": ""}], "signature": _ANOTHERS},
                {"type": "text", "text": "x"},
            ],
        },
        _USER,
    ),
}

# -- Responses ---------------------------------------------------------------------------------------------------------


def _input(*items: Json, **members: Any) -> Json:
    return {"model": "M", "max_output_tokens": 16, "input": [_USER, *items], **members}


def _input_calls(count: int) -> list[Json]:
    return [
        {"type": "function_call", "call_id": f"c{number}", "name": f"f{number}", "arguments": "{}"}
        for number in range(count)
    ]


def _input_results(count: int) -> list[Json]:
    return [
        {"type": "function_call_output", "call_id": f"c{number}", "output": "x"} for number in reversed(range(count))
    ]


def _input_tools(count: int) -> Json:
    functions = [{"type": "function", "name": f"f{number}"} for number in range(count)]
    tools = [{**each, "parameters": {"type": "object"}} for each in functions]
    return _input(tools=tools, tool_choice={"type": "allowed_tools", "mode": "auto", "tools": functions[::-1]})


RESPONSES: Mapping[str, Make] = {
    "the last call's result first": lambda n: _input(*_input_calls(n), *_input_results(n)),
    "all results at the end": lambda n: _input(*_between(_input_calls(n), _USER), *_input_results(n)),
    "words between results": lambda n: _input(*_input_calls(n), *_between(_input_results(n), _USER)),
    "sealed thinking": lambda n: _input(
        *[{"type": "reasoning", "summary": [], "encrypted_content": _ANOTHERS, "id": f"r{each}"} for each in range(n)],
        _USER,
    ),
    "all tools allowed": _input_tools,
}

# -- Anthropic ---------------------------------------------------------------------------------------------------------


def _messages(*messages: Json) -> Json:
    return {"model": "M", "max_tokens": 10, "messages": [_USER, *messages]}


def _blocks(role: str, blocks: Sequence[Json]) -> Json:
    return {"role": role, "content": list(blocks)}


_TEXT: Json = {"type": "text", "text": "a"}


def _uses(count: int) -> list[Json]:
    return [{"type": "tool_use", "id": f"t{number}", "name": "f", "input": {}} for number in range(count)]


def _tool_results(count: int) -> list[Json]:
    return [{"type": "tool_result", "tool_use_id": f"t{number}", "content": "x"} for number in reversed(range(count))]


ANTHROPIC: Mapping[str, Make] = {
    "the last call's result first": lambda n: _messages(
        _blocks("assistant", _uses(n)), _blocks("user", _tool_results(n))
    ),
    "words between results": lambda n: _messages(
        _blocks("assistant", _uses(n)), _blocks("user", _between(_tool_results(n), _TEXT))
    ),
    "all results at the end": lambda n: _messages(
        *_between([_blocks("assistant", [use]) for use in _uses(n)], _USER), _blocks("user", _tool_results(n))
    ),
    "a long text before calls": lambda n: _messages(
        _blocks("assistant", [{"type": "text", "text": _LONG * n}, *_uses(n)]), _blocks("user", _tool_results(n))
    ),
    "sealed thinking": lambda n: _messages(
        _blocks("assistant", [*[{"type": "thinking", "thinking": "x", "signature": _GEMINIS}] * n, _TEXT]), _USER
    ),
}

# -- Gemini ------------------------------------------------------------------------------------------------------------

_SAID: Json = {"role": "user", "parts": [{"text": "a"}]}


def _contents(*contents: Json, **members: Any) -> Json:
    return {"contents": [_SAID, *contents], **members}


def _parts(role: str, parts: Sequence[Json]) -> Json:
    return {"role": role, "parts": list(parts)}


def _function_calls(count: int, *, has_ids: bool = False) -> list[Json]:
    return [
        {"functionCall": {"name": f"f{number}"} | ({"id": f"i{number}"} if has_ids else {})} for number in range(count)
    ]


def _function_responses(count: int, *, has_ids: bool = False) -> list[Json]:
    return [
        {"functionResponse": {"name": f"f{number}", "response": {}} | ({"id": f"i{number}"} if has_ids else {})}
        for number in reversed(range(count))
    ]


_THOUGHT: Json = {"text": "x", "thought": True}
_SEAL: Json = {"text": "", "thought": True, "thoughtSignature": _ANOTHERS}


def _declarations(count: int) -> Json:
    names = [f"f{number}" for number in range(count)]
    calling = {"mode": "ANY", "allowedFunctionNames": names[::-1]}
    tools = [{"functionDeclarations": [{"name": name} for name in names]}]
    return _contents(tools=tools, toolConfig={"functionCallingConfig": calling})


GEMINI: Mapping[str, Make] = {
    "the last call's result first": lambda n: _contents(
        _parts("model", _function_calls(n)), _parts("user", _function_responses(n))
    ),
    "calls of one name": lambda n: _contents(
        _parts("model", _function_calls(1) * n), _parts("user", _function_responses(1) * n)
    ),
    "calls with ids": lambda n: _contents(
        _parts("model", _function_calls(n, has_ids=True)), _parts("user", _function_responses(n, has_ids=True))
    ),
    "all results at the end": lambda n: _contents(
        *_between([_parts("model", [call]) for call in _function_calls(n)], _SAID),
        _parts("user", _function_responses(n)),
    ),
    "a long text before calls": lambda n: _contents(
        _parts("model", [{"text": _LONG * n}, *_function_calls(n)]), _parts("user", _function_responses(n))
    ),
    "thoughts before a seal": lambda n: _contents(_parts("model", [*[_THOUGHT] * 4 * n, _SEAL]), _SAID),
    "turns of thoughts before a seal": lambda n: _contents(
        *[_parts("model", [_THOUGHT])] * 4 * n, _parts("model", [_SEAL]), _SAID
    ),
    "all tools allowed": _declarations,
}

# -- Ollama ------------------------------------------------------------------------------------------------------------


def _ollama_calls(count: int) -> list[Json]:
    return [{"function": {"name": f"f{number}", "arguments": {}}} for number in range(count)]


def _ollama_results(count: int, *, has_names: bool = True) -> list[Json]:
    return [
        {"role": "tool", "content": "x"} | ({"tool_name": f"f{number}"} if has_names else {})
        for number in reversed(range(count))
    ]


def _ollama_turn(calls: Sequence[Json]) -> Json:
    return {"role": "assistant", "content": "", "tool_calls": list(calls)}


OLLAMA: Mapping[str, Make] = {
    "the last call's result first": lambda n: _chat(_ollama_turn(_ollama_calls(n)), *_ollama_results(n)),
    "results without names": lambda n: _chat(
        _ollama_turn(_ollama_calls(n)), *_ollama_results(n, has_names=False), _USER
    ),
    "all results at the end": lambda n: _chat(
        *_between([_ollama_turn([call]) for call in _ollama_calls(n)], _USER), *_ollama_results(n)
    ),
}

HISTORIES: Mapping[str, Mapping[str, Make]] = {
    "openai": {**CHAT, **_OPENAI},
    "openai-responses": RESPONSES,
    "anthropic": ANTHROPIC,
    "gemini": GEMINI,
    "mistral": {**CHAT, **_MISTRAL},
    "ollama": OLLAMA,
}
"""By the dialect of the client, and by what is long."""


def history(dialect: str, what: str, count: int) -> bytes:
    """A request's body."""
    return json.dumps(HISTORIES[dialect][what](count), separators=(",", ":")).encode()
