"""
The cells of the matrix: every way in which an answer can come to a client, past every first-party processor.

An axis is a line of AXES. A cell is one value of each; what its values mean for the proxy's configuration, the
upstream's script and what the client may see is said here, once for each value.
"""

from __future__ import annotations

import asyncio
import json
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
from tests.answers import chat_chunk, completion, error, reply, sse, stream, usage_chunk
from tests.script import Chunk, Cut, Head, Script, Stall, Step, Wait

BLOCKED, REWRITTEN, REWRITE = "tabooword", "secretword", "[removed]"
_TEXTS = {"blocked": ("It is ta", "boow", "ord, no less."), "rewritten": ("It is sec", "retwo", "rd, no less.")}

AXES: Mapping[str, tuple[str, ...]] = {
    "processor": ("cache", "cost_limit", "enhance_query", "openai_chat"),
    "guards": ("outside", "inside"),
    "mode": ("plain", "stream"),
    "comes": ("miss", "hit", "shared"),
    "end": ("complete", "cut", "upstream error", "client gone", "rejected later"),
    "canary": ("blocked", "rewritten"),
}


@attrs.frozen
class Cell:
    """One way. *guards*: where the guard and the filter stand, seen from the processor and the cache."""

    processor: str
    guards: str
    mode: str
    comes: str
    end: str
    canary: str

    def __str__(self) -> str:
        return "-".join(value.replace(" ", "_") for value in attrs.astuple(self))

    @property
    def streams(self) -> bool:
        return self.mode == "stream"

    @property
    def texts(self) -> tuple[str, ...]:
        return _TEXTS[self.canary]

    def question(self) -> bytes:
        asked: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}
        return json.dumps(asked | ({"stream": True} if self.streams else {})).encode()

    # -- what the upstream does ----------------------------------------------------------------------------------

    def good(self) -> Sequence[Step]:
        """The whole answer."""
        if not self.streams:
            return reply(completion("".join(self.texts)))
        return stream(*map(chat_chunk, self.texts), chat_chunk(None, finish="stop"), usage_chunk())

    def script(self, go_on: asyncio.Event) -> Script:
        """What the end of this cell has the upstream do, once *go_on* is set."""
        if self.end == "upstream error":
            return [Wait(go_on), *reply(error("boom"), status=500)]
        if self.end == "cut":
            return [Wait(go_on), Head(), *self._first(), Cut()] if self.streams else [Wait(go_on), *self._half()]
        if self.end == "client gone" and self.comes != "shared":  # shared: somebody else still wants it
            return [Head(), *self._first()[:1], Stall()] if self.streams else [Stall()]
        return [Wait(go_on), *self.good()]

    def _first(self) -> list[Chunk]:
        return [Chunk(sse(chat_chunk(text), done=False)) for text in self.texts]

    def _half(self) -> list[Any]:
        body = json.dumps(completion("".join(self.texts))).encode()
        return [Head(headers={"content-type": "application/json"}, framing=len(body)), Chunk(body[:-9]), Cut()]

    # -- what is configured --------------------------------------------------------------------------------------

    def mapping(self, base_url: str, enhancer_url: str) -> dict[str, Any]:
        price = {"input": "1.00", "output": "2.00"}
        between = ["caching"] if self.processor == "cache" else [self.processor, "caching"]
        around, below = (["guard", "filter"], []) if self.guards == "outside" else ([], ["guard", "filter"])
        return {
            "llm": {
                "main": {"provider": "openai", "base_url": base_url, "prices": {"*": price}},
                "enhancer": {"provider": "openai", "base_url": enhancer_url, "prices": {"*": price}},
            },
            "processor": {
                "guard": {"type": "test_guard"},
                "filter": {"type": "test_filter"},
                "rejecting": {"type": "test_rejecting"},
                "caching": {"type": "cache"},
                "cost_limit": {"type": "cost_limit", "daily_usd": "1.00"},
                "enhance_query": {"type": "enhance_query", "llm": "enhancer", "model": "e"},
                "openai_chat": {"type": "openai_chat", "llm": "enhancer", "config_value": "e"},
            },
            "route": [
                {
                    "path_prefix": "/v1",
                    "target_llm": "main",
                    "operations": ["chat"],
                    "processors": [*around, *between, *below, "rejecting"],
                }
            ],
        }


CELLS = [Cell(*values) for values in product(*AXES.values())]


# -- what a client got -------------------------------------------------------------------------------------------------


def text_in(body: bytes) -> str:
    """All text that an answer, streamed or not, whole or not, gives the client."""
    if body.startswith(b"{"):
        choices = json.loads(body).get("choices", [])
        return "".join(choice["message"]["content"] or "" for choice in choices)
    events = [json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: {")]
    deltas = [choice["delta"] for event in events for choice in event.get("choices", [])]
    return "".join(delta.get("content") or "" for delta in deltas)


def error_code_in(body: bytes) -> str | None:
    """The code of the error in an answer, as its body or as its last event; None when there is none."""
    for line in [body, *body.splitlines()]:
        data = line.removeprefix(b"data: ")
        if data.startswith(b'{"error"') and data.endswith(b"}"):
            return str(json.loads(data)["error"]["code"])
    return None


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
            raise GuardrailBlocked("The answer holds a word that must not be said")

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
