"""
Members that nobody here knows, deep in a request: to an LLM of another protocol they are refused by name, or told of.

Where both sides speak one protocol they arrive as they were sent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from typing import Any

import attrs
import pytest

from llmproxy_core.chat import ChatRequest
from llmproxy_core.dialect import Api, Dialect, Operation
from llmproxy_core.errors import Unsupported
from llmproxy_core.plugins import Registry
from llmproxy_core.translation import Translation

UNKNOWN = "zz_unknown"

_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
_PDF = "JVBERi0xLjQK"
_SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}

MODELS: Mapping[str, str] = {
    "openai": "gpt-4o",
    "openai-responses": "gpt-4o",
    "anthropic": "claude-opus-4-6",
    "gemini": "gemini-2.5-pro",
    "mistral": "mistral-large-latest",
    "ollama": "qwen3",
}

_FREE = frozenset({"parameters", "schema", "input_schema", "parametersJsonSchema", "responseJsonSchema", "args"})
_FREE_HERE: Mapping[str, frozenset[str]] = {
    "openai": frozenset({"metadata"}),
    "openai-responses": frozenset({"metadata"}),
    "anthropic": frozenset({"input"}),
    "gemini": frozenset({"response", "responseSchema"}),
    "mistral": frozenset({"metadata"}),
    "ollama": frozenset({"arguments", "format"}),
}
"""Members whose objects have whatever names their author gives them."""

_UNHEARD: Mapping[str, frozenset[str]] = {
    "openai": frozenset({"annotations"}),
    "openai-responses": frozenset({"annotations", "summary"}),
    "anthropic": frozenset({"citations"}),
    "mistral": frozenset({"thinking"}),
}
"""Of past answers, and nothing to another provider: what stands in them goes with them."""

_FUNCTION = {"name": "f", "description": "d", "parameters": _SCHEMA, "strict": False}
_CHAT_TURNS = [
    {"role": "system", "content": [{"type": "text", "text": "be nice"}]},
    {"role": "user", "content": "hi"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "a12345678", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "a12345678", "content": [{"type": "text", "text": "it is"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "yes"}]},
    {"role": "user", "content": [{"type": "text", "text": "so?"}]},
]
_CHAT_TOOLS = [{"type": "function", "function": _FUNCTION}]
_CHAT_FORMAT = {"type": "json_schema", "json_schema": {"name": "n", "schema": _SCHEMA, "description": "d"}}
_SAID = [{"role": "user", "content": "hi, in json"}]


def _chat_parts(image: Any) -> list[Any]:
    return [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": image}]


_SHARED_CHAT: Mapping[str, Any] = {
    "turns": {"messages": _CHAT_TURNS, "tools": _CHAT_TOOLS},
    "choice": {
        "messages": _SAID,
        "tools": _CHAT_TOOLS,
        "tool_choice": {"type": "function", "function": {"name": "f"}},
    },
    "schema": {"messages": _SAID, "response_format": _CHAT_FORMAT},
    "json": {"messages": _SAID, "response_format": {"type": "json_object"}},
    "text": {"messages": _SAID, "response_format": {"type": "text"}},
    "image": {"messages": [{"role": "user", "content": _chat_parts({"url": f"data:image/png;base64,{_PNG}"})}]},
}

REQUESTS: Mapping[str, Mapping[str, Any]] = {
    "openai": {
        **_SHARED_CHAT,
        "stream": {"messages": _SAID, "stream": True, "stream_options": {"include_usage": True}},
        "plain": {"messages": _SAID, "stream_options": {"include_obfuscation": False}},
        "allowed": {
            "messages": _SAID,
            "tools": _CHAT_TOOLS,
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
            },
        },
        "custom": {
            "messages": _SAID,
            "tools": [{"type": "custom", "custom": {"name": "c", "description": "d", "format": {"type": "text"}}}],
            "tool_choice": {"type": "custom", "custom": {"name": "c"}},
        },
        "grammar": {
            "messages": _SAID,
            "tools": [
                {
                    "type": "custom",
                    "custom": {
                        "name": "c",
                        "format": {"type": "grammar", "grammar": {"syntax": "regex", "definition": "a+"}},
                    },
                }
            ],
        },
        "legacy": {
            "messages": [
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
                {"role": "function", "name": "f", "content": "1"},
            ],
            "functions": [{"name": "f", "parameters": _SCHEMA}],
            "function_call": {"name": "f"},
        },
        "sound": {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}],
                }
            ]
        },
        "file": {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "file",
                            "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{_PDF}"},
                        }
                    ],
                }
            ]
        },
        "marks": {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
                }
            ]
        },
    },
    "openai-responses": {
        "items": {
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
                {
                    "type": "message",
                    "id": "msg_1",
                    "role": "assistant",
                    "status": "completed",
                    "content": [{"type": "output_text", "text": "yes", "annotations": []}],
                },
                {"type": "function_call", "id": "fc_1", "call_id": "a12345678", "name": "f", "arguments": "{}"},
                {
                    "type": "function_call_output",
                    "call_id": "a12345678",
                    "output": [{"type": "input_text", "text": "1"}],
                },
                {"role": "user", "content": "so?"},
            ],
            "tools": [{"type": "function", "name": "f", "description": "d", "parameters": _SCHEMA, "strict": False}],
        },
        "choice": {
            "input": "hi",
            "tools": [{"type": "function", "name": "f", "parameters": _SCHEMA}],
            "tool_choice": {"type": "function", "name": "f"},
        },
        "allowed": {
            "input": "hi",
            "tools": [{"type": "function", "name": "f", "parameters": _SCHEMA}],
            "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
        },
        "custom": {
            "input": "hi",
            "tools": [{"type": "custom", "name": "c", "description": "d", "format": {"type": "text"}}],
        },
        "grammar": {
            "input": "hi",
            "tools": [
                {
                    "type": "custom",
                    "name": "c",
                    "format": {"type": "grammar", "syntax": "regex", "definition": "a+"},
                }
            ],
        },
        "schema": {
            "input": "hi",
            "text": {"format": {"type": "json_schema", "name": "n", "schema": _SCHEMA}, "verbosity": "medium"},
        },
        "json": {"input": "json", "text": {"format": {"type": "json_object"}}},
        "text": {"input": "hi", "text": {"format": {"type": "text"}}},
        "reasoning": {"input": "hi", "reasoning": {"effort": "low", "summary": "auto"}},
        "no reasoning": {"input": "hi", "reasoning": {}},
        "stream": {"input": "hi", "stream": True, "stream_options": {"include_obfuscation": False}},
        "media": {
            "input": [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "see"},
                        {"type": "input_image", "image_url": f"data:image/png;base64,{_PNG}", "detail": "auto"},
                    ],
                }
            ]
        },
        "file": {
            "input": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "input_file",
                            "filename": "a.pdf",
                            "file_data": f"data:application/pdf;base64,{_PDF}",
                        }
                    ],
                }
            ]
        },
        "marks": {
            "input": [
                {
                    "role": "user",
                    "content": [{"type": "input_text", "text": "hi", "prompt_cache_breakpoint": {"mode": "explicit"}}],
                }
            ]
        },
    },
    "anthropic": {
        "turns": {
            "system": [{"type": "text", "text": "be nice", "cache_control": {"type": "ephemeral", "ttl": "5m"}}],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "hi"}]},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "text", "text": "wait"},
                        {"type": "tool_use", "id": "a12345678", "name": "f", "input": {"a": "b"}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "a12345678",
                            "content": [{"type": "text", "text": "1"}],
                            "cache_control": {"type": "ephemeral"},
                        }
                    ],
                },
            ],
            "tools": [
                {
                    "name": "f",
                    "description": "d",
                    "input_schema": _SCHEMA,
                    "cache_control": {"type": "ephemeral"},
                }
            ],
            "tool_choice": {"type": "auto"},
        },
        "marked": {"messages": _SAID, "cache_control": {"type": "ephemeral"}},
        "any": {
            "messages": _SAID,
            "tools": [{"type": "custom", "name": "f", "input_schema": _SCHEMA}],
            "tool_choice": {"type": "any"},
        },
        "one": {
            "messages": _SAID,
            "tools": [{"name": "f", "input_schema": _SCHEMA}],
            "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": False},
        },
        "none": {
            "messages": _SAID,
            "tools": [{"name": "f", "input_schema": _SCHEMA}],
            "tool_choice": {"type": "none"},
        },
        "serial": {
            "messages": _SAID,
            "tools": [{"name": "f", "input_schema": _SCHEMA}],
            "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        },
        "budget": {"messages": _SAID, "thinking": {"type": "enabled", "budget_tokens": 2048}},
        "adaptive": {
            "messages": _SAID,
            "thinking": {"type": "adaptive", "display": "summarized"},
            "output_config": {"effort": "low"},
        },
        "disabled": {"messages": _SAID, "thinking": {"type": "disabled"}},
        "schema": {"messages": _SAID, "output_config": {"format": {"type": "json_schema", "schema": _SCHEMA}}},
        "old schema": {"messages": _SAID, "output_format": {"type": "json_schema", "schema": _SCHEMA}},
        "user": {"messages": _SAID, "metadata": {"user_id": "u"}},
        "image": {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": _PNG}},
                    ],
                }
            ]
        },
        "image by url": {
            "messages": [
                {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "https://a.b/c.png"}}]}
            ]
        },
        "documents": {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "document",
                            "source": {"type": "text", "media_type": "text/plain", "data": "words"},
                            "title": "t",
                            "citations": {"enabled": False},
                        },
                        {
                            "type": "document",
                            "source": {"type": "content", "content": [{"type": "text", "text": "words"}]},
                        },
                        {
                            "type": "search_result",
                            "source": "",
                            "title": "t",
                            "content": [{"type": "text", "text": "words"}],
                        },
                    ],
                }
            ]
        },
        "pdf": {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "document",
                            "source": {"type": "base64", "media_type": "application/pdf", "data": _PDF},
                        }
                    ],
                }
            ]
        },
    },
    "gemini": {
        "turns": {
            "systemInstruction": {"parts": [{"text": "be nice"}]},
            "contents": [
                {"role": "user", "parts": [{"text": "hi"}]},
                {"role": "model", "parts": [{"functionCall": {"id": "a12345678", "name": "f", "args": {"a": 1}}}]},
                {
                    "role": "user",
                    "parts": [{"functionResponse": {"id": "a12345678", "name": "f", "response": {"result": "1"}}}],
                },
            ],
            "tools": [{"functionDeclarations": [{"name": "f", "description": "d", "parameters": _SCHEMA}]}],
            "toolConfig": {"functionCallingConfig": {"mode": "AUTO"}},
        },
        "choice": {
            "contents": [{"parts": [{"text": "hi"}]}],
            "tools": [{"functionDeclarations": [{"name": "f", "parametersJsonSchema": _SCHEMA}]}],
            "tool_config": {"function_calling_config": {"mode": "ANY", "allowed_function_names": ["f"]}},
        },
        "config": {
            "contents": [{"parts": [{"text": "hi"}]}],
            "generationConfig": {"temperature": 0.5, "maxOutputTokens": 2000},
        },
        "thinking": {
            "contents": [{"parts": [{"text": "hi"}]}],
            "generation_config": {"thinking_config": {"thinking_budget": 1024, "include_thoughts": True}},
        },
        "schema": {
            "contents": [{"parts": [{"text": "hi"}]}],
            "generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": _SCHEMA},
        },
        "image": {
            "contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": _PNG}}, {"text": "see"}]}],
        },
        "file": {
            "contents": [{"parts": [{"fileData": {"mimeType": "image/png", "fileUri": "https://a.b/c.png"}}]}],
        },
        "seen": {
            "contents": [
                {"role": "user", "parts": [{"text": "hi"}]},
                {"role": "model", "parts": [{"functionCall": {"id": "a12345678", "name": "f", "args": {}}}]},
                {
                    "role": "user",
                    "parts": [
                        {
                            "functionResponse": {
                                "id": "a12345678",
                                "name": "f",
                                "response": {"result": "1"},
                                "parts": [{"inlineData": {"mimeType": "image/png", "data": _PNG}}],
                            }
                        }
                    ],
                },
            ],
            "tools": [{"functionDeclarations": [{"name": "f"}]}],
        },
    },
    "mistral": {
        **_SHARED_CHAT,
        "document": {
            "messages": [
                {"role": "user", "content": [{"type": "document_url", "document_url": "https://a.b/c.pdf"}]},
            ]
        },
        "sound": {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": "AAAA"}]}]},
    },
    "ollama": {
        "turns": {
            "messages": [
                {"role": "system", "content": "be nice"},
                {"role": "user", "content": "hi", "images": [_PNG]},
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"id": "a12345678", "function": {"name": "f", "arguments": {"a": 1}}}],
                },
                {"role": "tool", "content": "1", "tool_name": "f", "tool_call_id": "a12345678"},
            ],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": _SCHEMA}}],
        },
        "options": {"messages": _SAID, "options": {"temperature": 0.5, "num_ctx": 4096}},
        "schema": {"messages": _SAID, "format": _SCHEMA},
    },
}
"""Requests that are nothing special, but for what is put into them."""


@cache
def _dialects() -> Mapping[str, Dialect]:
    return {name: Registry.load().dialects[name] for name in MODELS}


@attrs.frozen
class Place:
    """An object of a request that has a member nobody knows."""

    client: str
    request: str
    path: tuple[str | int, ...]

    def __str__(self) -> str:
        steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path)
        return f"{self.client}: {self.request}{steps}"

    def body(self, *, known: bool = False) -> bytes:
        """The request; *known*: without the member."""
        request = {"model": "m", **deepcopy(REQUESTS[self.client][self.request])}
        if self.client == "anthropic":
            request["max_tokens"] = 4096
        if self.client == "gemini":
            del request["model"]
        if not known:
            target = request
            for step in self.path:
                target = target[step]
            target[UNKNOWN] = 1
        return json.dumps(request).encode()

    def api(self, dialect: str) -> Api:
        stream = bool(REQUESTS[self.client][self.request].get("stream", False))
        found = _dialects()[dialect].api_for(Operation.CHAT, stream=stream)
        assert found is not None
        return found

    def read(self, *, known: bool = False) -> ChatRequest:
        return _dialects()[self.client].read_chat(self.api(self.client), self.body(known=known))


def _objects(client: str, value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where the objects of *value* stand that have members by a protocol."""
    if isinstance(value, dict):
        if path:
            yield path
        closed = _FREE | _FREE_HERE[client] | _UNHEARD.get(client, frozenset())
        for name, inner in value.items():
            if name not in closed or (name == "input" and client == "openai-responses"):
                yield from _objects(client, inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _objects(client, inner, (*path, index))


PLACES = [
    Place(client, name, path)
    for client, requests in REQUESTS.items()
    for name, request in requests.items()
    for path in _objects(client, request)
]


def _write(place: Place, target: str, *, drops: bool, known: bool = False) -> tuple[bytes, Translation]:
    chat = attrs.evolve(place.read(known=known), model=MODELS[target])
    dialect = _dialects()[target]
    told = Translation(llm="l", drops=drops, max_output_tokens=4096, names=_dialects()[place.client].field_names)
    return dialect.write_chat(place.api(target), chat, told), told


CROSSINGS = [(place, target) for place in PLACES for target in MODELS if target != place.client]


def _is_named(told: str, place: Place) -> bool:
    """Whether *told* is the member, the tool's format that it stands in, or the tool of Google's that it would be."""
    is_google_tool = place.client == "gemini" and place.path == ("tools", 0)
    return (
        UNKNOWN in told
        or ("format" in place.path and told.endswith(".format"))
        or (is_google_tool and told == "tools[1]")
    )


def _is_within(place: Place, told: str) -> bool:
    """Whether the object stands in what *told* names, in which it is left out."""
    path = str(place).partition(".")[2]
    return path == told or path.startswith((f"{told}.", f"{told}["))


@pytest.mark.parametrize(("place", "target"), CROSSINGS, ids=[f"{place} to {target}" for place, target in CROSSINGS])
def test_what_nobody_knows_is_told_of_where_it_is_dropped(place: Place, target: str) -> None:
    """What is left out as a whole, and told of, is told of with all that is in it."""
    _, plain = _write(place, target, drops=True, known=True)
    body, told = _write(place, target, drops=True)
    if UNKNOWN.encode() in body:
        assert place.request in {"custom", "grammar"}, "only a grammar goes as it is"
        return
    lost = [name for name, word in plain.changes.items() if word in {"dropped", "omitted"}]
    named = [name for name in told.changes if _is_named(name, place)]
    assert named or any(_is_within(place, name) for name in lost), told.changes


def _attempt(place: Place, target: str) -> tuple[bytes, Translation, str]:
    """What is sent, what is told, and with what words the request is refused."""
    try:
        return *_write(place, target, drops=False), ""
    except Unsupported as error:
        return b"", Translation(), error.message


@pytest.mark.parametrize(("place", "target"), CROSSINGS, ids=[f"{place} to {target}" for place, target in CROSSINGS])
def test_what_nobody_knows_is_refused_by_name_or_told(place: Place, target: str) -> None:
    try:
        _write(place, target, drops=False, known=True)
    except Unsupported:
        with pytest.raises(Unsupported):
            _write(place, target, drops=False)
        return
    body, told, refused = _attempt(place, target)
    assert UNKNOWN in refused or not refused
    if not refused and UNKNOWN.encode() not in body:
        lost = [name for name, word in told.changes.items() if word == "omitted"]
        named = [name for name in told.changes if _is_named(name, place)]
        assert named or any(_is_within(place, name) for name in lost), told.changes


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_where_both_sides_speak_one_protocol_it_arrives(place: Place) -> None:
    dialect = _dialects()[place.client]
    assert dialect.write_chat(place.api(place.client), place.read()) == place.body()


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_it_stays_where_a_processor_changes_something_else(place: Place) -> None:
    dialect = _dialects()[place.client]
    changed = attrs.evolve(place.read(), temperature=0.25)
    written = dialect.write_chat(place.api(place.client), changed)
    found = json.loads(written)
    for step in place.path:
        found = found[step]
    assert found[UNKNOWN] == 1


EMPTY: Mapping[str, Any] = {"none": None, "text": "", "list": [], "object": {}}


@pytest.mark.parametrize("empty", EMPTY.values(), ids=EMPTY.keys())
@pytest.mark.parametrize("target", [name for name in MODELS if name != "openai"])
def test_what_says_nothing_is_no_reason_to_refuse(target: str, empty: Any) -> None:
    """SDKs send back what they were given: members that are null or empty."""
    nothing = {"annotations": empty or [], "audio": None, "refusal": empty or None, "zz": empty}
    request = {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes", **nothing}, *_SAID],
        "tools": [{"type": "function", "function": {**_FUNCTION, "zz": empty}}],
    }
    openai, there = _dialects()["openai"], _dialects()[target]
    api, their_api = (it.api_for(Operation.CHAT, stream=False) for it in (openai, there))
    assert api is not None
    assert their_api is not None
    chat = attrs.evolve(openai.read_chat(api, json.dumps(request).encode()), model=MODELS[target])
    told = Translation(llm="l", max_output_tokens=4096)
    there.write_chat(their_api, chat, told)
    assert not any("zz" in name for name in told.changes)


_ADVICE = {
    "openai: stream.stream_options",
    "openai: marks.messages[0].content[0].cache_control",
    "openai-responses: stream.stream_options",
    "openai-responses: marks.input[0].content[0].prompt_cache_breakpoint",
    "anthropic: turns.tools[0].cache_control",
    "anthropic: marked.cache_control",
    "anthropic: user.metadata",
}


@pytest.mark.parametrize("place", [place for place in PLACES if str(place) in _ADVICE], ids=str)
def test_what_is_advice_is_left_out_and_told_in_both_modes(place: Place) -> None:
    target = "gemini"
    _, told = _write(place, target, drops=False)
    assert [word for name, word in told.changes.items() if UNKNOWN in name] == ["dropped"]


def test_how_openais_models_are_to_think_is_left_out_and_told() -> None:
    openai, there = _dialects()["openai-responses"], _dialects()["anthropic"]
    api, their_api = (it.api_for(Operation.CHAT, stream=False) for it in (openai, there))
    assert api is not None
    assert their_api is not None
    body = b'{"model":"claude-opus-4-6","input":"hi","reasoning":{"effort":"low","context":"auto","mode":"pro"}}'
    told = Translation(llm="l", max_output_tokens=4096, names=openai.field_names)
    there.write_chat(their_api, openai.read_chat(api, body), told)
    assert told.changes["reasoning.context"] == told.changes["reasoning.mode"] == "dropped"


SEARCHES: Mapping[str, tuple[Any, str]] = {
    "anthropic": ({"type": "web_search_20250305", "name": "web_search", UNKNOWN: 1}, f"tools[0].{UNKNOWN}"),
    "openai-responses": ({"type": "web_search", UNKNOWN: 1}, f"tools[0].{UNKNOWN}"),
    "gemini": ({"googleSearch": {UNKNOWN: 1}}, f"tools[0].googleSearch.{UNKNOWN}"),
}


@pytest.mark.parametrize(
    ("client", "target"), [(client, target) for client in SEARCHES for target in SEARCHES if client != target]
)
def test_a_search_of_the_web_loses_nothing_silently(client: str, target: str) -> None:
    tool, named = SEARCHES[client]
    own, there = _dialects()[client], _dialects()[target]
    api, their_api = (it.api_for(Operation.CHAT, stream=False) for it in (own, there))
    assert api is not None
    assert their_api is not None
    said: Any = {"contents": [{"parts": [{"text": "hi"}]}]} if client == "gemini" else {"messages": _SAID}
    said = {"input": "hi"} if client == "openai-responses" else said
    body = json.dumps({"model": "m", "max_tokens": 10, **said, "tools": [tool]}).encode()
    chat = attrs.evolve(own.read_chat(api, body), model=MODELS[target], extra={})
    with pytest.raises(Unsupported) as refused:
        there.write_chat(their_api, chat, Translation(llm="l", max_output_tokens=4096))
    assert refused.value.param == named
