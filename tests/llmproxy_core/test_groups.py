"""An LLM that picks among others by the model that the request names."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from llmproxy_core import (
    BadRequest,
    End,
    Exchange,
    GroupConfig,
    ModelMap,
    ModelPrice,
    Operation,
    Price,
    Reply,
    Request,
    Response,
    RouteNotFound,
    Tasks,
    Unsupported,
)
from llmproxy_core.group_config import ByModelConfig
from llmproxy_core.groups import llmproxy_providers
from llmproxy_core.groups.by_model import ByModel
from tests.llmproxy_core.conversation import CHAT, DIALECT, SOON_S, exchange, question, whole
from tests.llmproxy_core.transport_double import ScriptedTransport, services


class Member:
    """An LLM that remembers what it was asked."""

    def __init__(self, name: str, *models: str | tuple[str, str], override: str | None = None) -> None:
        self.name = name
        entries = [(it, None) if isinstance(it, str) else it for it in models]
        self.models = ModelMap(tuple(entries), override)
        self.asked: list[str | None] = []
        self.closed = 0

    async def send(self, call: Exchange) -> Response:
        self.asked.append(call.request.model)
        return Reply(call, whole(self.name), dialect=DIALECT, api=CHAT)

    async def prices(self, model: str | None) -> Sequence[ModelPrice | None]:
        sent = model if model is None else self.models.sent(model)
        return (ModelPrice(f"{self.name}/{sent}", Price(1, 2)),)

    async def aclose(self) -> None:
        self.closed += 1


def _group(tasks: Tasks, *members: Member | ByModel, **config: Any) -> ByModel:
    named = {f"m{number}": member for number, member in enumerate(members)}
    table = GroupConfig(name="group", provider="by_model", members=tuple(named), **config)
    return ByModel(table, services(ScriptedTransport([], tasks), tasks, llm=named.__getitem__))


async def _ask(group: ByModel, tasks: Tasks, model: str) -> str:
    call = exchange(tasks, body=question(model=model))
    response = await asyncio.wait_for(group.send(call), SOON_S)
    return (await response.reply()).text


EXACT = Member("exact", "gpt-4o", ("alias", "gpt-4o"))
GLOB = Member("glob", "gpt-*")
ANY = Member("any")
OTHER = Member("other", "claude-*", "gpt-4o")


@pytest.mark.parametrize(
    ("members", "asked", "expected"),
    [
        ([GLOB, EXACT], "gpt-4o", "exact"),  # the very name counts before globs
        ([GLOB, EXACT], "gpt-4o-mini", "glob"),
        ([ANY, GLOB], "gpt-4o-mini", "glob"),  # globs count before members without a list
        ([ANY, GLOB, EXACT], "gpt-4o", "exact"),
        ([GLOB, ANY], "claude-3", "any"),
        ([EXACT, OTHER], "gpt-4o", "exact"),  # among equals, the order of members
        ([OTHER, EXACT], "gpt-4o", "other"),
        ([ANY, Member("second")], "anything", "any"),
        ([EXACT], "alias", "exact"),
    ],
)
async def test_the_member_that_names_the_model_best_answers(
    tasks: Tasks, members: list[Member], asked: str, expected: str
) -> None:
    assert await _ask(_group(tasks, *members), tasks, asked) == expected


async def test_a_member_gets_the_name_that_was_asked_and_maps_it_itself(tasks: Tasks) -> None:
    member = Member("m", ("alias", "real"))

    await _ask(_group(tasks, member), tasks, "alias")

    assert member.asked == ["alias"]


async def test_the_groups_own_map_is_applied_before_the_choice(tasks: Tasks) -> None:
    fast, best = Member("fast", "small"), Member("best", "large")
    group = _group(tasks, fast, best, models=(("cheap", "small"), ("good", "large"), ("small", None)))

    answers = [await _ask(group, tasks, asked) for asked in ("cheap", "good", "small")]

    assert answers == ["fast", "best", "fast"]
    assert (fast.asked, best.asked) == (["small", "small"], ["large"])


async def test_the_groups_own_names_do_not_stay_in_the_request(tasks: Tasks) -> None:
    """Whoever tries another LLM after this one asks it for what the caller asked."""
    group = _group(tasks, Member("fast", "small"), models=(("cheap", "small"),))
    call = exchange(tasks, body=question(model="cheap"))
    request = call.request

    await asyncio.wait_for(group.send(call), SOON_S)

    assert call.request is request
    call.finish(End.ABANDONED)


async def test_the_groups_own_model_is_asked_whatever_the_caller_asks(tasks: Tasks) -> None:
    member = Member("m", "forced")
    group = _group(tasks, member, model="forced")

    await _ask(group, tasks, "anything")

    assert member.asked == ["forced"]


async def test_a_request_without_a_model_gets_the_groups_own(tasks: Tasks) -> None:
    member = Member("m", "forced")
    call = exchange(tasks, body=b'{"messages":[]}')

    await asyncio.wait_for(_group(tasks, member, model="forced").send(call), SOON_S)

    assert member.asked == ["forced"]


async def test_a_request_without_a_model_cannot_be_placed(tasks: Tasks) -> None:
    call = exchange(tasks, body=b'{"messages":[]}')

    with pytest.raises(BadRequest, match="names no model") as refused:
        await asyncio.wait_for(_group(tasks, ANY).send(call), SOON_S)

    assert refused.value.param == "model"


@pytest.mark.parametrize("config", [{}, {"models": (("cheap", "small"), ("none", "nobody"))}])
@pytest.mark.parametrize("asked", ["unknown", "none", "x" * 256])
async def test_a_model_that_nobody_serves_is_not_found(tasks: Tasks, config: dict[str, Any], asked: str) -> None:
    with pytest.raises(RouteNotFound) as refused:
        await _ask(_group(tasks, EXACT, GLOB, **config), tasks, asked)

    assert (refused.value.status, refused.value.code, refused.value.param) == (404, "model_not_found", "model")
    assert len(refused.value.message) < 300


async def test_a_group_may_be_a_member(tasks: Tasks) -> None:
    inner = _group(tasks, Member("deep", "deep-1"), Member("wide", "wide-*"))
    outer = _group(tasks, Member("own", "own-1"), inner)

    answers = [await _ask(outer, tasks, asked) for asked in ("own-1", "deep-1", "wide-9")]

    assert answers == ["own", "deep", "wide"]


async def test_opaque_calls_name_no_model_and_cannot_be_placed(tasks: Tasks) -> None:
    request = Request(operation=Operation.OPAQUE, dialect=DIALECT)
    call = Exchange(request, id="7", route="/", tasks=tasks, clock=lambda: 0.0)

    with pytest.raises((BadRequest, Unsupported)):
        await asyncio.wait_for(_group(tasks, ANY).send(call), SOON_S)


# -- what it says of itself ------------------------------------------------------------------------------------------


async def test_its_models_are_those_of_its_members(tasks: Tasks) -> None:
    group = _group(tasks, Member("a", "gpt-4o", "gpt-*"), Member("b", "claude", "gpt-4o", ("alias", "x")))

    assert group.models.names == ["gpt-4o", "claude", "alias"]
    assert group.models.listed
    assert group.models.sent("gpt-9") == "gpt-9"
    assert group.models.sent("alias") == "alias"  # the member maps it
    assert group.models.sent("llama") is None
    assert group.models is group.models


async def test_a_member_without_a_list_serves_any_model_for_the_group(tasks: Tasks) -> None:
    group = _group(tasks, Member("a", "gpt-4o"), Member("any"))

    assert group.models.names == ["gpt-4o"]
    assert group.models.sent("whatever") == "whatever"


async def test_its_own_list_counts_where_it_has_one(tasks: Tasks) -> None:
    group = _group(tasks, Member("a", "gpt-4o"), models=(("cheap", "gpt-4o"),))

    assert group.models.names == ["cheap"]
    assert group.models.sent("gpt-4o") is None


@pytest.mark.parametrize(
    ("asked", "config", "expected"),
    [
        ("gpt-4o", {}, ["exact/gpt-4o"]),
        ("alias", {}, ["exact/gpt-4o"]),
        ("gpt-5", {}, ["glob/gpt-5"]),
        ("cheap", {"models": (("cheap", "gpt-4o"),)}, ["exact/gpt-4o"]),
        ("unlisted", {"models": (("cheap", "gpt-4o"),)}, []),
        (None, {"model": "gpt-5"}, ["glob/gpt-5"]),
        ("alias", {"model": "gpt-5"}, ["glob/gpt-5"]),
        (None, {}, []),
        ("llama", {}, []),
    ],
)
async def test_its_prices_are_those_of_the_member_that_would_be_asked(
    tasks: Tasks, asked: str | None, config: dict[str, Any], expected: list[str]
) -> None:
    group = _group(tasks, EXACT, GLOB, **config)

    found = await asyncio.wait_for(group.prices(asked), SOON_S)

    assert [it and it.name for it in found] == expected


async def test_the_memory_of_callers_names_is_bounded(tasks: Tasks) -> None:
    group = _group(tasks, GLOB)

    for number in range(5000):
        assert group.pick(f"gpt-{number}") is GLOB

    assert len(group._picked) <= 1024


async def test_closing_it_closes_nobody_else(tasks: Tasks) -> None:
    member = Member("m")

    await _group(tasks, member).aclose()

    assert member.closed == 0


def test_it_is_registered_as_by_model() -> None:
    provider = next(it for it in llmproxy_providers() if it.name == "by_model")

    assert (provider.name, provider.config, provider.build) == ("by_model", ByModelConfig, ByModel)
