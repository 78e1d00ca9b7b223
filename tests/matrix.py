"""
The cells of the matrix: every way in which an answer can come to a client, past every first-party processor.

An axis is a line of AXES. A cell is one value of each; what its values mean for the proxy's configuration, the
upstream's script and what the client may see is said here, once for each value.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import attrs

from llmproxy_core import (
    Exchange,
    Forbidden,
    GuardrailBlocked,
    Handler,
    Operation,
    ProcessorType,
    Replace,
    Response,
    Services,
    WordWatcher,
    hookimpl,
)
from llmproxy_core.chat import ChatEvent, Finish, Finished, FinishReason, TextDelta
from tests.answering import Answering
from tests.script import Script, Stall, Wait
from tests.speaking import SPEAKERS, Speaker, llm_at

BLOCKED, REWRITTEN, REWRITE = "tabooword", "secretword", "[removed]"
BLOCK_MESSAGE = "The answer holds a word that must not be said"
_TEXTS = {"blocked": ("It is ta", "boow", "ord, no less."), "rewritten": ("It is sec", "retwo", "rd, no less.")}
_CLIENTS = {str(speaker): speaker for speaker in SPEAKERS}
_OTHER_LLM = {
    "openai": Speaker("anthropic"),
    "openai-responses": Speaker("gemini"),
    "anthropic": Speaker("openai-responses"),
    "gemini": Speaker("mistral"),
    "gemini-array": Speaker("openai"),
    "mistral": Speaker("anthropic"),
}
"""For each client an LLM that speaks another protocol, so that every protocol is behind another one, too."""

AXES: Mapping[str, tuple[str, ...]] = {
    "processor": ("cache", "cost_limit", "enhance_query", "openai_chat", "chaos"),
    "guards": ("outside", "inside"),
    "client": tuple(_CLIENTS),
    "llm": ("same", "other"),
    "mode": ("plain", "stream"),
    "comes": ("miss", "hit", "shared"),
    "end": (
        "complete",
        "cut",
        "unfinished",
        "upstream error",
        "error midway",
        "client gone",
        "rejected later",
    ),
    "canary": ("blocked", "rewritten"),
}


@attrs.frozen
class Group:
    """The cells that one proxy serves. *guards*: where the guard and the filter stand, seen from the processor."""

    processor: str
    guards: str
    client: str
    llm: str

    def __str__(self) -> str:
        return "-".join(attrs.astuple(self))

    @property
    def speaker(self) -> Speaker:
        return _CLIENTS[self.client]

    @property
    def upstream(self) -> Speaker:
        return self.speaker if self.llm == "same" else _OTHER_LLM[self.client]

    @property
    def enhancer(self) -> Speaker:
        """The LLM that rewrites questions speaks what the route's own does not."""
        return _OTHER_LLM[str(self.upstream)]

    def mapping(self, url: str, enhancer_url: str) -> dict[str, Any]:
        prices = {"*": {"input": "1.00", "output": "2.00"}}
        between = ["caching"] if self.processor == "cache" else [self.processor, "caching"]
        around, below = (["guard", "filter"], []) if self.guards == "outside" else ([], ["guard", "filter"])
        return {
            "llm": {
                "main": llm_at(self.upstream.name, url, prices=prices),
                "enhancer": llm_at(self.enhancer.name, enhancer_url, prices=prices),
            },
            "processor": {
                "guard": {"type": "test_guard"},
                "filter": {"type": "test_filter"},
                "rejecting": {"type": "test_rejecting"},
                "caching": {"type": "cache"},
                "cost_limit": {"type": "cost_limit", "daily_usd": "1.00"},
                "enhance_query": {"type": "enhance_query", "llm": "enhancer", "model": "e"},
                "chaos": {"type": "chaos", "faults": {"latency": {"share": 1.0, "ms": 0}}},
                "openai_chat": {"type": "openai_chat", "llm": "enhancer", "config_value": "e"},
            },
            "route": [
                {
                    "path_prefix": "/",
                    "target_llm": "main",
                    "operations": ["chat"],
                    "processors": [*around, *between, *below, "rejecting"],
                }
            ],
        }


@attrs.frozen
class Cell:
    """One way."""

    group: Group
    mode: str
    comes: str
    end: str
    canary: str

    def __str__(self) -> str:
        return "-".join([str(self.group), self.mode, self.comes, self.end, self.canary]).replace(" ", "_")

    @property
    def streams(self) -> bool:
        return self.mode == "stream"

    @property
    def text(self) -> str:
        """What the client is told when nothing keeps it from it."""
        return "".join(_TEXTS[self.canary]).replace(REWRITTEN, REWRITE)

    @property
    def is_covered(self) -> bool:
        """
        Whether it is run.

        With OpenAI on both sides all are. Of the others each combination of the axes but *guards* is, and what is
        about other callers and later processors with the cache alone, where it may matter who keeps which bytes. Chaos,
        which injects nothing but no time at all here, leaves the bytes alone whatever they are.
        """
        if self.end == "unfinished" and not self.streams:
            return False
        if (self.group.client, self.group.llm) == ("openai", "same"):
            return True
        if self.group.processor == "chaos":
            return False
        if self.comes == "shared" or self.end in ("client gone", "rejected later"):
            pairs = {("shared", "complete"), ("miss", "client gone"), ("hit", "rejected later")}
            return self.group.processor == "cache" and (self.comes, self.end) in pairs and self._has_turn
        return self._has_turn

    @property
    def _has_turn(self) -> bool:
        """Of two cells that differ in *guards* alone one has."""
        values = zip(AXES.values(), [*attrs.astuple(self.group), *attrs.astuple(self)[1:]], strict=True)
        return sum(axis.index(value) for axis, value in values) % 2 == 0

    # -- what the upstream does ----------------------------------------------------------------------------------

    def answering(self) -> Answering:
        said: list[ChatEvent] = [TextDelta(0, text) for text in _TEXTS[self.canary]]
        said.append(Finished(0, Finish(FinishReason.STOP)))
        return Answering(self.group.upstream, self.streams, said)

    def script(self, go_on: asyncio.Event) -> Script:
        """What the end of this cell has the upstream do, once *go_on* is set."""
        answering = self.answering()
        match self.end:
            case "upstream error":
                return [Wait(go_on), *answering.error()]
            case "error midway":
                return [Wait(go_on), *answering.error_midway()]
            case "cut":
                return [Wait(go_on), *answering.cut()]
            case "unfinished":
                return [Wait(go_on), *answering.unfinished()]
            case "client gone" if self.comes != "shared":  # shared: somebody else still wants it
                return [*answering.begun(), Stall()] if self.streams else [Stall()]
            case _:
                return [Wait(go_on), *answering.complete()]


def _groups() -> list[Group]:
    return [Group(*values) for values in product(*list(AXES.values())[:4])]


def _cells(group: Group) -> Sequence[Cell]:
    cells = (Cell(group, *values) for values in product(*list(AXES.values())[4:]))
    return [cell for cell in cells if cell.is_covered]


CELLS: Mapping[Group, Sequence[Cell]] = {group: _cells(group) for group in _groups()}


# -- the test's own processors -----------------------------------------------------------------------------------------


@attrs.frozen
class NoKeys:
    """No keys."""


class Plugin:
    """A guard, a filter, and a later processor that rejects what it is told to."""

    def __init__(self) -> None:
        self.rejects = False
        self.go_on = asyncio.Event()
        self.blocks = 0

    async def guard(self, exchange: Exchange, call_next: Handler) -> Response:
        response = await call_next(exchange)

        def found(word: str) -> None:
            self.blocks += 1
            raise GuardrailBlocked(BLOCK_MESSAGE)

        response.watch(lambda channel: WordWatcher([BLOCKED], found))
        return response

    async def filter(self, exchange: Exchange, call_next: Handler) -> Response:
        response = await call_next(exchange)
        response.rewrite(lambda channel: Replace({REWRITTEN: REWRITE}))
        return response

    async def rejecting(self, exchange: Exchange, call_next: Handler) -> Response:
        if self.rejects:
            await self.go_on.wait()
            raise Forbidden("A later processor does not want it")
        return await call_next(exchange)

    @hookimpl
    def llmproxy_processors(self) -> Iterable[ProcessorType[Any]]:
        chat = frozenset({Operation.CHAT})

        def kind(name: str, processor: Any) -> ProcessorType[Any]:
            def build(config: NoKeys, services: Services) -> Any:
                return processor

            return ProcessorType(name, NoKeys, build, chat)

        return [
            kind("test_guard", self.guard),
            kind("test_filter", self.filter),
            kind("test_rejecting", self.rejecting),
        ]
