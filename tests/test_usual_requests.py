"""
What is quick for the usual request says what a careful look does, and leaves the unusual to that.

Each request is read, and written in every protocol, twice: once as ever, and once with all the quick ways closed. And a
usual one is translated in few steps, which are counted.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import attrs
import pytest

from bench.pairs import Pair, pairs
from llmproxy_core.chat import ChatRequest
from llmproxy_core.dialect import Api, Dialect, Operation
from llmproxy_core.errors import ProxyError
from llmproxy_core.plugins import Registry
from llmproxy_core.translation import Translation
from llmproxy_core.wire import request_body
from llmproxy_core.wire.form import Form
from llmproxy_core.wire.plan import Plan, plan_of
from tests.growth import calls
from tests.test_unknown_nested import MODELS, REQUESTS

REGISTRY = Registry.load()
DIALECTS: Mapping[str, Dialect] = {name: REGISTRY.dialects[name] for name in MODELS}
PAIRS = pairs(REGISTRY)
MOST_CALLS = 420
"""Of functions, those in C too, for a request that is translated; looked at member by member it takes up to 1,100."""

_PACKAGES = (
    "llmproxy_core",
    "llmproxy_openai",
    "llmproxy_anthropic",
    "llmproxy_gemini",
    "llmproxy_mistral",
    "llmproxy_ollama",
)
_QUICK = ("plain_message", "plain_parts", "plain_text", "plain_turn", "is_plain")
_ODD: tuple[Any, ...] = (None, True, 0, 1.5, "", "x", "text", [], {}, [None], {"type": "text", "text": "q"})


def _closed(patch: pytest.MonkeyPatch) -> None:
    """Close the quick ways: none of them knows anything."""
    for name, module in list(sys.modules.items()):
        if not name.startswith(_PACKAGES) or name == "llmproxy_core.wire.plain":
            continue
        for word, value in list(vars(module).items()):
            if callable(value) and not isinstance(value, type) and (word in _QUICK or word.startswith("_plain")):
                patch.setattr(module, word, _none)
    patch.setattr(request_body, "plan_of", _plan_without_values)


def _none(*_: object) -> None:
    return None


def _plan_without_values(form: Form) -> Plan:
    return attrs.evolve(plan_of(form), values={}, texts={})


def _bodies() -> Iterator[tuple[str, Any]]:
    for pair in PAIRS:
        yield pair.client.dialect.name, json.loads(pair.client.question)
    chance = random.Random(7)
    for client, requests in REQUESTS.items():
        for request in requests.values():
            asked = dict(request) | ({} if client == "gemini" else {"model": "m"})
            yield client, asked
            yield from ((client, _changed(asked, chance)) for _ in range(6))


def _changed(request: Any, chance: random.Random) -> Any:
    """*request* with something odd at some place, or something missing."""
    request = deepcopy(request)
    path = chance.choice([path for path in _paths(request) if path])
    place = request
    for step in path[:-1]:
        place = place[step]
    if chance.random() < 0.3:
        del place[path[-1]]
    elif chance.random() < 0.5 and isinstance(place, dict):
        place[chance.choice(["name", "id", "text", "cache_control", "strict", "zz"])] = chance.choice(_ODD)
    else:
        place[path[-1]] = chance.choice(_ODD)
    return request


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, each in inner:
        yield from _paths(each, (*path, step))


BODIES = list(_bodies())


def _api(dialect: Dialect) -> Api:
    api = dialect.api_for(Operation.CHAT, stream=False)
    assert api is not None
    return api


def _meant(client: str, body: bytes) -> list[Any]:
    """What *body* says, to its last byte, and what it is in all the protocols."""
    try:
        chat = DIALECTS[client].read_chat(_api(DIALECTS[client]), body)
    except ProxyError as error:
        return [type(error), error.message, error.param]
    return [
        _told(chat),
        *(_written(chat, name, drops) for name in DIALECTS for drops in (True, False) if name != client),
    ]


def _written(chat: ChatRequest, name: str, drops: bool) -> tuple[object, ...]:
    translation = Translation(drops=drops, max_output_tokens=100)
    try:
        text = DIALECTS[name].write_chat(_api(DIALECTS[name]), attrs.evolve(chat, model=MODELS[name]), translation)
    except ProxyError as error:
        return name, type(error), error.message, translation.changes
    return name, text, translation.changes


def _told(value: Any) -> Any:
    """*value* with what neither equality nor repr shows."""
    if attrs.has(type(value)):
        fields = [field.name for field in attrs.fields(type(value)) if field.name != "origin"]
        return type(value).__name__, [(name, _told(getattr(value, name))) for name in fields]
    if isinstance(value, tuple):
        return [_told(each) for each in value]
    return value


@pytest.mark.parametrize("client", DIALECTS)
def test_a_request_is_read_and_written_the_same_quickly_and_carefully(client: str) -> None:
    bodies = [json.dumps(body).encode() for name, body in BODIES if name == client]
    quickly = [_meant(client, body) for body in bodies]
    with pytest.MonkeyPatch.context() as patch:
        _closed(patch)
        carefully = [_meant(client, body) for body in bodies]

    for body, quick, careful in zip(bodies, quickly, carefully, strict=True):
        assert quick == careful, body


def test_closing_the_quick_ways_closes_them() -> None:
    pair = next(it for it in PAIRS if it.client.dialect.name != it.llm.dialect.name)
    quickly = calls(pair.ask)
    with pytest.MonkeyPatch.context() as patch:
        _closed(patch)
        assert calls(pair.ask) > quickly


@pytest.mark.parametrize("pair", PAIRS, ids=lambda it: f"{it.client.dialect.name} to {it.llm.dialect.name}")
def test_a_usual_request_is_translated_in_few_steps(pair: Pair) -> None:
    pair.ask()

    assert calls(pair.ask) < MOST_CALLS
