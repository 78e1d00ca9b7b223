"""
A real proxy in the test's own event loop, on 127.0.0.1 and a free port.

    async with Upstream(stream(chat_chunk("Hello"))) as upstream, Proxy(openai_at(upstream.base_url)) as proxy:
        ...  # call proxy.base_url
        assert (await proxy.outcome()).end is End.COMPLETED
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

import llmproxy_core.builtin_stores
import llmproxy_core.groups
import llmproxy_openai.plugin
from llmproxy_core.config import structure
from llmproxy_core.exchange import Exchange
from llmproxy_core.gateway import Gateway
from llmproxy_core.outcome import Outcome
from llmproxy_core.plugins import Registry
from llmproxy_server.backlog import Backlog
from llmproxy_server.server import Server

if TYPE_CHECKING:
    from llmproxy_server.pages.server import Page

STANDARD_PLUGINS = (llmproxy_openai.plugin, llmproxy_core.groups, llmproxy_core.builtin_stores)
SECRET = "sk-proxy-test-0123456789"


def openai_at(
    base_url: str,
    *,
    route: Mapping[str, object] | None = None,
    server: Mapping[str, object] | None = None,
    **llm: object,
) -> dict[str, Any]:
    """One route, `/v1`, to one LLM of provider `openai` at *base_url*; *route*, *server* and *llm* add keys."""
    return {
        "server": dict(server or {}),
        "llm": {"openai": {"provider": "openai", "base_url": base_url, **llm}},
        "route": [{"path_prefix": "/v1", "target_llm": "openai", **(route or {})}],
    }


class _Told(Backlog):
    """A backlog that tells when it has written."""

    def __init__(self, told: Callable[[], None]) -> None:
        super().__init__()
        self._told = told

    def write(self) -> None:
        super().write()
        self._told()


class Proxy:
    """
    The proxy that *mapping* (as a TOML file would hold it) configures, while it is entered.

    *plugins* come on top of the dialect `openai` and the groups; host and port are set here. Each exchange's outcome
    goes to `outcomes` when the exchange ends.
    """

    pages: ClassVar["Sequence[Page]"] = ()
    """What is shown over aiohttp; set by the fixture `both_ways`."""

    def __init__(
        self,
        mapping: Mapping[str, Any],
        *,
        plugins: Sequence[object] = (),
        env: Mapping[str, str] | None = None,
        timeout_s: float = 10.0,  # of each wait
    ) -> None:
        server = {"host": "127.0.0.1", "port": 0, **mapping.get("server", {})}
        self.registry = Registry.of(*STANDARD_PLUGINS, *plugins)
        assert not self.registry.broken, self.registry.broken
        config, self.warnings = structure({**mapping, "server": server}, self.registry, {"KEY": SECRET, **(env or {})})
        self.config = config
        self.timeout_s = timeout_s
        self.server = self.make_server()
        self._exchanges: list[Exchange] = []
        self._open: list[Exchange] = []
        self._outcomes: list[Outcome] = []
        self._changed = asyncio.Event()

    def make_server(self, **options: Any) -> Server:
        """A server that tells of its exchanges here; *options* are more parameters of its own, or others."""
        server = Server(self.config, self.registry, **{"observers": [self._observe], "pages": self.pages, **options})
        server._maker.backlog = _Told(self._look)
        return server

    @property
    def exchanges(self) -> list[Exchange]:
        """All so far; those that completed are finished."""
        self.server.write_down()
        return self._exchanges

    @property
    def outcomes(self) -> list[Outcome]:
        """Of those that are over, in the order in which they ended."""
        self.server.write_down()
        return self._outcomes

    @property
    def gateway(self) -> Gateway:
        return self.server.gateway

    @property
    def url(self) -> str:
        """The root: scheme, host and port."""
        return self.server.url

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as its base_url."""
        return f"{self.url}/v1"

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def outcome(self, count: int = 1) -> Outcome:
        """The outcome number *count*, waiting for it."""
        async with asyncio.timeout(self.timeout_s):
            while len(self.outcomes) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.outcomes[count - 1]

    def _observe(self, exchange: Exchange) -> None:
        """Without a callback of its own: who asks to be told of an end has a call end in another way than most do."""
        self._exchanges.append(exchange)
        self._open.append(exchange)

    def _look(self) -> None:
        """Some were written down."""
        ended = [it for it in self._open if it.outcome is not None]
        if ended:
            self._open = [it for it in self._open if it.outcome is None]
            outcomes = [it.outcome for it in ended if it.outcome is not None]
            self._outcomes += sorted(outcomes, key=lambda it: it.ended_s)
            self._changed.set()

    async def __aenter__(self) -> Self:
        await self.server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.server.aclose()


def with_server(mapping: Mapping[str, Any], **keys: object) -> dict[str, Any]:
    """*mapping* with *keys* in its `[server]`."""
    return {**mapping, "server": {**mapping.get("server", {}), **keys}}


__all__ = ["SECRET", "STANDARD_PLUGINS", "Proxy", "openai_at", "with_server"]
