"""Who is named, by the stack alone: the same look as the watchdog's, taken by who is looked at."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from llmproxy_core import (
    Exchange,
    Handler,
    LLMConfig,
    ModelPrice,
    Operation,
    Outcome,
    ProcessorType,
    ProviderType,
    Response,
    Services,
    hookimpl,
)
from llmproxy_core.model_map import ModelMap
from llmproxy_core.processor import Processor
from llmproxy_server.culprit import OURSELVES, STRANGER, Culprit, Suspects
from tests.llmproxy_server.edging import HELLO, NoConfig, ask, post
from tests.proxy import Proxy, openai_at
from tests.rawclient import connected
from tests.upstream import Upstream, completion, reply

PLUGIN = f"plugin {__name__}.Looked"
Look = Callable[[], None]


class Looks:
    """What is seen from where it is called."""

    def __init__(self) -> None:
        self.proxy: Proxy
        self.seen: list[Culprit] = []
        self.done = asyncio.Event()

    def __call__(self) -> None:
        frame = sys._getframe(1)
        self.seen.append(Suspects(lambda: self.proxy.gateway).culprit(frame))
        self.done.set()


class Does:
    """A processor that is what the test says."""

    def __init__(self, act: Callable[[Any, Exchange, Response], None]) -> None:
        self._act = act

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        response = await call_next(exchange)
        self._act(self, exchange, response)
        return response


class Blocks:
    """An LLM that cannot answer."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self.models = ModelMap()

    async def send(self, exchange: Exchange) -> Response:
        exchange.attempts.append(exchange.attempt("own", None))
        self._look()
        raise KeyError("a bug")

    async def prices(self, model: str | None) -> Sequence[ModelPrice | None]:
        return ()

    async def aclose(self) -> None:
        """Nothing is held."""


class Looked:
    """A plugin of two processor types and a provider, so that none can be guessed."""

    def __init__(self, look: Look, act: Callable[[Any, Exchange, Response], None] = lambda *_: None) -> None:
        self._look = look
        self._act = act

    @hookimpl
    def llmproxy_processors(self) -> Iterable[ProcessorType[Any]]:
        def build(config: NoConfig, services: Services) -> Processor:
            return Does(self._act)

        def build_idle(config: NoConfig, services: Services) -> Processor:
            return Does(lambda *_: None)

        every = frozenset(Operation)
        return [
            ProcessorType(name="acts", config=NoConfig, build=build, operations=every),
            ProcessorType(name="idles", config=NoConfig, build=build_idle, operations=every),
        ]

    @hookimpl
    def llmproxy_providers(self) -> Iterable[ProviderType[Any]]:
        def build(config: LLMConfig, services: Services) -> Blocks:
            return Blocks(self._look)

        return [ProviderType(name="own", config=LLMConfig, build=build)]


def mapping(base_url: str, llm: str = "openai", processors: Sequence[str] = ("one", "two")) -> dict[str, Any]:
    whole = openai_at(base_url, route={"processors": list(processors), "target_llm": llm})
    whole["llm"]["own"] = {"provider": "own"}
    tables = {"one": {"type": "idles"}, "two": {"type": "acts"}}
    return {**whole, "processor": {name: tables[name] for name in processors or tables}}


async def seen(
    act: Callable[[Looks, Any, Exchange, Response], None] = lambda *_: None,
    *,
    llm: str = "openai",
    processors: Sequence[str] = ("one", "two"),
) -> Culprit:
    """Who is seen first, during a call in which the processor *two* does *act*."""
    looks = Looks()
    plugin = Looked(looks, lambda *them: act(looks, *them))
    async with (
        Upstream(reply(completion("Hello"))) as upstream,
        Proxy(mapping(upstream.base_url, llm, processors), plugins=[plugin]) as proxy,
        connected(proxy.port) as client,
    ):
        looks.proxy = proxy
        await ask(client, post(HELLO))
        async with asyncio.timeout(20):
            await looks.done.wait()
    return looks.seen[0]


async def test_an_llm_is_named_and_not_the_processor_that_called_it() -> None:
    found = await seen(llm="own")

    assert found.who == f"LLM 'own' ({PLUGIN})"
    assert found.place is not None
    assert found.place.endswith(" in send")


async def test_an_llm_without_processors_around_it_is_named() -> None:
    found = await seen(llm="own", processors=())

    assert found.who == f"LLM 'own' ({PLUGIN})"


async def test_a_function_that_a_processor_made_is_its_own() -> None:
    def act(looks: Looks, processor: Any, exchange: Exchange, response: Response) -> None:
        def ended(outcome: Outcome) -> None:
            assert processor is not None
            looks()

        exchange.on_finish(ended)

    assert (await seen(act)).who == f"processor 'two' ({PLUGIN})"


async def test_a_plugin_with_one_processor_is_that_processor() -> None:
    def act(looks: Looks, processor: Any, exchange: Exchange, response: Response) -> None:
        exchange.on_finish(lambda outcome: looks())

    assert (await seen(act, processors=["two"])).who == f"processor 'two' ({PLUGIN})"
    assert (await seen(act)).who == PLUGIN


async def test_a_processor_that_runs_later_is_known_by_itself() -> None:

    def act(looks: Looks, processor: Any, exchange: Exchange, response: Response) -> None:
        def later(self: Any) -> None:
            looks()

        asyncio.get_running_loop().call_soon(later, processor)

    assert (await seen(act)).who == f"processor 'two' ({PLUGIN})"


async def test_a_watcher_of_a_whole_answer_is_its_processors() -> None:
    def act(looks: Looks, processor: Any, exchange: Exchange, response: Response) -> None:
        class Watcher:
            def feed(self, text: str) -> None:
                looks()

            def end(self) -> None:
                """Nothing is held."""

        response.watch(lambda channel: Watcher())

    assert (await seen(act)).who == f"processor 'two' ({PLUGIN})"


async def test_code_that_no_plugin_owns_is_told_as_that() -> None:
    looks = Looks()

    def stray() -> None:
        looks()

    async with Proxy(openai_at("http://127.0.0.1:9/v1")) as looks.proxy:
        asyncio.get_running_loop().call_soon(stray)
        async with asyncio.timeout(20):
            await looks.done.wait()

    (found,) = looks.seen
    assert found.who == STRANGER
    assert str(found.place).startswith("test_culprit.py:")


async def test_code_of_ours_is_our_own_fault() -> None:
    looks = Looks()
    names: dict[str, Any] = {"__name__": "llmproxy_server.some", "look": looks}
    exec(compile("def busy():\n    look()\n", "<some.py>", "exec"), names)
    async with Proxy(openai_at("http://127.0.0.1:9/v1")) as looks.proxy:
        asyncio.get_running_loop().call_soon(names["busy"])
        async with asyncio.timeout(20):
            await looks.done.wait()

    assert looks.seen == [Culprit(OURSELVES, "<some.py>:2 in busy")]
