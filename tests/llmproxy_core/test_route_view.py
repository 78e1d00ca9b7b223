"""What processors may know of their route, and the stores that a gateway lends."""

import asyncio
import copy
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

import llmproxy_core.builtin_stores
from llmproxy_core import (
    Exchange,
    ExtraCall,
    Handler,
    Operation,
    ProcessorType,
    Request,
    Response,
    Services,
    StoreType,
    Tasks,
    hookimpl,
    option,
)
from llmproxy_core.config import structure
from llmproxy_core.fingerprint import fingerprint
from tests.llmproxy_core.conversation import DIALECT, question
from tests.llmproxy_core.made_gateway import CHAT_ONLY, EVERYTHING, LOCAL, Canned, Made, Mark, one_route

# -- a plugin whose work can be seen ---------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class AskingConfig:
    """Asks an LLM something of its own."""

    llm: str | None = option("Which.", default=None, refers_to="llm")
    words: frozenset[str] = option("Some words.", default=frozenset())
    bound: int = option("How many tokens.", default=7)
    store: str = option("Where.", default="memory", refers_to="store")


class Asking:
    def __init__(self, config: AskingConfig, services: Services) -> None:
        self.config = config
        self.services = services
        self.store = services.store(config.store)

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        return await call_next(exchange)


def _bound(config: AskingConfig, request: Request) -> Sequence[ExtraCall]:
    return [ExtraCall(config.llm, None, config.bound, len(request.body))]


@attrs.frozen(kw_only=True)
class ShelfConfig:
    """A store that counts."""

    broken: bool = option("Whether it cannot be closed.", default=False)


class Shelf:
    """A store that can do nothing but be closed."""

    def __init__(self, config: ShelfConfig, services: Services) -> None:
        self._config = config
        self.closed = 0

    async def aclose(self) -> None:
        self.closed += 1
        if self._config.broken:
            raise OSError("the disk is gone")


SHELVES: list[Any] = []


def _shelf(config: ShelfConfig, services: Services) -> Any:
    SHELVES.append(Shelf(config, services))
    return SHELVES[-1]


class Plugin:
    @hookimpl
    def llmproxy_processors(self) -> Iterable[ProcessorType[Any]]:
        return [
            ProcessorType("asking", AskingConfig, Asking, EVERYTHING, extra_cost_bound=_bound),
            ProcessorType("asking_in_chats", AskingConfig, Asking, CHAT_ONLY, skippable=True, extra_cost_bound=_bound),
        ]

    @hookimpl
    def llmproxy_stores(self) -> Iterable[StoreType[Any]]:
        return [StoreType("shelf", ShelfConfig, _shelf)]


PLUGINS = (llmproxy_core.builtin_stores, Plugin())


def _made(mapping: dict[str, Any], tasks: Tasks) -> Made:
    return Made(mapping, tasks, plugins=PLUGINS)


# -- the view --------------------------------------------------------------------------------------------------------


async def test_a_processor_finds_its_route_by_the_exchanges(tasks: Tasks) -> None:
    mapping = one_route() | {"llm": {"local": LOCAL, "other": {"provider": "canned"}}}
    mapping["route"] = [*mapping["route"], {"path_prefix": "/other", "target_llm": "other"}]
    made = _made(mapping, tasks)

    for prefix, name in [("/v1", "local"), ("/other", "other")]:
        view = made.gateway.services.route(prefix)

        assert (view.name, view.llm_name) == (prefix, name)
        assert view.llm is made.gateway.llms[name]
    assert made.exchange("POST", "/v1/chat/completions", question()).route == "/v1"
    with pytest.raises(KeyError):
        made.gateway.services.route("/unknown")


async def test_it_tells_the_calls_that_those_processors_may_add_which_act_on_the_operation(tasks: Tasks) -> None:
    mapping = one_route({"processors": ["all", "chats", "mark"]}) | {
        "processor": {
            "all": {"type": "asking", "llm": "local", "bound": 1},
            "chats": {"type": "asking_in_chats", "bound": 2},
            "mark": {"type": "mark"},
            "elsewhere": {"type": "asking", "bound": 100},
        }
    }
    view = _made(mapping, tasks).gateway.services.route("/v1")

    def calls(operation: Operation) -> Sequence[ExtraCall]:
        return view.extra_calls(Request(operation=operation, dialect=DIALECT, body=b"12345"))

    assert calls(Operation.CHAT) == [ExtraCall("local", None, 1, 5), ExtraCall(None, None, 2, 5)]
    assert calls(Operation.EMBEDDINGS) == [ExtraCall("local", None, 1, 5)]


# -- its fingerprint -------------------------------------------------------------------------------------------------

WHOLE: dict[str, Any] = {
    "server": {"port": 0},
    "llm": {
        "group": {"provider": "by_model", "members": ["local", "second"]},
        "local": {**LOCAL, "models": ["gpt-4o"], "headers": {"x-team": "a", "x-else": "b"}},
        "second": {"provider": "canned", "says": "hi"},
        "helper": {"provider": "canned", "says": "helping"},
        "stranger": {"provider": "canned", "says": "nothing to do with it"},
    },
    "processor": {
        "mark": {"type": "mark", "mark": "1"},
        "asks": {"type": "asking", "llm": "helper", "words": ["a", "b", "c"]},
        "stranger": {"type": "mark", "mark": "2"},
    },
    "route": [
        {"path_prefix": "/v1", "target_llm": "group", "processors": ["mark", "asks"]},
        {"path_prefix": "/stranger", "target_llm": "stranger", "processors": ["stranger"]},
    ],
}

Change = Callable[[dict[str, Any]], object]

CHANGES: dict[str, Change] = {
    "the target": lambda it: it["route"][0].update(target_llm="local"),
    "a flag of the route": lambda it: it["route"][0].update(allow_streaming=False),
    "on_unsupported": lambda it: it["route"][0].update(on_unsupported="drop"),
    "the order of its processors": lambda it: it["route"][0].update(processors=["asks", "mark"]),
    "one processor less": lambda it: it["route"][0].update(processors=["mark"]),
    "a key of a processor": lambda it: it["processor"]["mark"].update(mark="3"),
    "a processor's type": lambda it: it["processor"]["mark"].update(type="chat_mark"),
    "its time-out": lambda it: it["processor"]["mark"].update(timeout_s=3.0),
    "what happens when it fails": lambda it: it["processor"]["mark"].update(on_error="pass"),
    "a word of a set": lambda it: it["processor"]["asks"].update(words=["a", "b"]),
    "whom a processor asks": lambda it: it["processor"]["asks"].update(llm="second"),
    "a key of whom it asks": lambda it: it["llm"]["helper"].update(says="something else"),
    "a member's URL": lambda it: it["llm"]["local"].update(base_url="http://localhost:2/v1"),
    "a member's models": lambda it: it["llm"]["local"].update(models={"gpt-4o": "gpt-5"}),
    "a member's header": lambda it: it["llm"]["local"]["headers"].update({"x-team": "b"}),
    "a member's price": lambda it: it["llm"]["local"].update(prices={"gpt-4o": {"input": 1, "output": 2}}),
    "a key of the other member": lambda it: it["llm"]["second"].update(says="ho"),
    "the order of members": lambda it: it["llm"]["group"].update(members=["second", "local"]),
}

NO_CHANGES: dict[str, Change] = {
    "nothing": lambda it: None,
    "the server": lambda it: it["server"].update(max_in_flight=3),
    "another LLM": lambda it: it["llm"]["stranger"].update(says="else"),
    "one LLM more": lambda it: it["llm"].update(more={"provider": "canned"}),
    "another processor": lambda it: it["processor"]["stranger"].update(mark="4"),
    "another route": lambda it: it["route"][1].update(allow_streaming=False),
    "one route less": lambda it: it["route"].pop(),
    "the order of tables": lambda it: it.update(llm=dict(reversed(it["llm"].items()))),
    "the order of a set": lambda it: it["processor"]["asks"].update(words=["c", "b", "a"]),
    "the order of headers": lambda it: it["llm"]["local"].update(headers={"x-else": "b", "x-team": "a"}),
    "a default written out": lambda it: it["llm"]["second"].update(enabled=True),
}


def _fingerprint(change: Change, tasks: Tasks) -> str:
    mapping = copy.deepcopy(WHOLE)
    change(mapping)
    return _made(mapping, tasks).gateway.services.route("/v1").fingerprint


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_its_fingerprint_tells_every_change_of_what_it_is_made_of(tasks: Tasks, change: Change) -> None:
    assert _fingerprint(change, tasks) != _fingerprint(NO_CHANGES["nothing"], tasks)


@pytest.mark.parametrize("change", NO_CHANGES.values(), ids=NO_CHANGES)
async def test_its_fingerprint_tells_no_other_change(tasks: Tasks, change: Change) -> None:
    assert _fingerprint(change, tasks) == _fingerprint(NO_CHANGES["nothing"], tasks)


async def test_two_routes_have_two_fingerprints(tasks: Tasks) -> None:
    route = _made(WHOLE, tasks).gateway.services.route

    assert route("/v1").fingerprint != route("/stranger").fingerprint


async def test_a_key_is_no_part_of_it(tasks: Tasks) -> None:
    """Whoever sees a cache's keys must not be able to try keys out on them."""
    registry = _made(WHOLE, tasks).registry
    llm = {**LOCAL, "token_env": "KEY", "headers": {"authorization": {"env": "KEY"}}}
    found = set()
    for key in ("sk-one", "sk-two"):
        config, _ = structure({**one_route(), "llm": {"local": llm}}, registry, {"KEY": key})
        found.add(fingerprint(config.routes[0], config))

    assert len(found) == 1


_PROGRAM = """
import asyncio
from llmproxy_core import Tasks
from tests.llmproxy_core.test_route_view import WHOLE, _made

async def main():
    print(_made(WHOLE, Tasks()).gateway.services.route("/v1").fingerprint)

asyncio.run(main())
"""


@pytest.mark.parametrize("seed", ["1", "2"])
async def test_it_is_the_same_in_every_process(tasks: Tasks, seed: str) -> None:
    """Processes may share a store."""
    root = Path(__file__).resolve().parents[2]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PROGRAM,
        cwd=root,
        env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)

    assert said.decode().strip() == _fingerprint(NO_CHANGES["nothing"], tasks)


# -- stores ----------------------------------------------------------------------------------------------------------


async def test_stores_are_built_once_and_closed_once(tasks: Tasks, caplog: pytest.LogCaptureFixture) -> None:
    SHELVES.clear()
    mapping = one_route({"processors": ["first", "second"]}) | {
        "store": {"broken": {"type": "shelf", "broken": True}, "shelf": {"type": "shelf"}},
        "processor": {name: {"type": "asking", "store": "shelf"} for name in ("first", "second")},
    }
    mapping["llm"]["canned"] = {"provider": "canned"}
    made = _made(mapping, tasks)
    first, second = made.gateway.processors("asking")
    assert isinstance(first, Asking)
    assert isinstance(second, Asking)

    assert len(SHELVES) == 2
    assert first.store is second.store is made.gateway.services.store("shelf") is SHELVES[1]
    await made.gateway.aclose()

    assert [shelf.closed for shelf in SHELVES] == [1, 1]
    canned = made.gateway.llms["canned"]
    assert isinstance(canned, Canned)
    assert canned.closed == 1
    assert [record.getMessage() for record in caplog.records] == ["the store broken could not be closed"]


async def test_without_a_table_there_is_a_store_in_memory(tasks: Tasks) -> None:
    mapping = one_route({"processors": ["asks"]}) | {"processor": {"asks": {"type": "asking"}}}
    made = _made(mapping, tasks)
    (asking,) = made.gateway.processors("asking")
    assert isinstance(asking, Asking)

    assert asking.store is made.gateway.stores["memory"]
    await made.gateway.aclose()


async def test_a_gateway_tells_its_processors_of_a_type(tasks: Tasks) -> None:
    table = {name: {"type": "mark", "mark": name} for name in ("a", "b")}
    made = _made(one_route({"processors": ["b"]}) | {"processor": {**table, "c": {"type": "chat_mark"}}}, tasks)

    found = made.gateway.processors("mark")

    assert [type(it) for it in found] == [Mark, Mark]  # also the one that stands in no route
    assert len(made.gateway.processors("chat_mark")) == 1
    assert made.gateway.processors("unknown") == []
