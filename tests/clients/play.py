"""
The scenarios as an official client plays them: what it is asked, and what it saw, as JSON.

A client written in JavaScript has the same in node/play.mjs, so that one table says what every client must see.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, Self

import attrs

from tests.providers.scenario import MISSING_MODEL, SYSTEM

JSON = dict[str, Any]


HTTP_LIBRARIES = frozenset({"aiohttp", "httpcore", "httpcore2", "httpx", "httpx2"})


@attrs.frozen
class Models:
    """The names of a provider's models."""

    chat: str
    thinking: str
    embeddings: str


class Client(ABC):
    """
    One way to use an official client: what each method saw, in names that are the same for all.

    `text`, `thought`; `calls`, pairs of name and arguments; `input`, `output`, the tokens as the protocol tells them;
    `finish`, the protocol's own word.
    """

    name: ClassVar[str]
    lacks: ClassVar[frozenset[str]] = frozenset()  # the scenarios that this client has no method for

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.key = key

    @staticmethod
    @abstractmethod
    def version() -> str:
        """The version of the client."""

    @abstractmethod
    async def __aenter__(self) -> Self: ...

    @abstractmethod
    async def __aexit__(self, *exception: object) -> None: ...

    @abstractmethod
    async def say(
        self, model: str, prompt: str, *, system: str = "", image: bool = False, stream: bool = False
    ) -> JSON:
        """The answer to *prompt*."""

    @abstractmethod
    async def think(self, model: str, prompt: str, *, stream: bool) -> JSON:
        """The answer to *prompt*, with the thought that led to it."""

    @abstractmethod
    async def use_tools(self, model: str, prompt: str, *, stream: bool = False, think: bool = False) -> JSON:
        """The calls of the first turn (and its thought), and the text after both results were sent back."""

    @abstractmethod
    async def structure(self, model: str, prompt: str) -> JSON:
        """`value`, the answer as the schema wants it."""

    @abstractmethod
    async def models(self) -> JSON:
        """`models`, the names of all, sorted."""

    @abstractmethod
    def failure(self, error: Exception) -> JSON | None:
        """`status` and `retry_after` (the header's text) of *error*; None when it is none of the client's own."""

    async def embed(self, model: str) -> JSON:
        """`vectors` of two texts."""
        raise NotImplementedError

    async def count(self, model: str, prompt: str) -> JSON:
        """`tokens`, how many *prompt* has."""
        raise NotImplementedError


async def play(client: Client, scenario: str, models: Models) -> JSON:
    """What *client* saw of *scenario*; a failure that is its own has `error`, any other failure `broken`."""
    try:
        return await _play(client, scenario, models)
    except Exception as error:  # noqa: BLE001 - whatever it is, the test says what the client met
        failure = client.failure(error)
        if failure is None and type(error).__module__.partition(".")[0] in HTTP_LIBRARIES:
            failure = {"status": None}  # how some clients tell that an answer broke off
        text = f"{type(error).__name__}: {error}"
        return {"broken": text} if failure is None else {"error": failure, "message": text}


def _play(client: Client, scenario: str, models: Models) -> Awaitable[JSON]:
    prompt = f"Say hello [{scenario}]"
    stream = scenario.endswith("_stream")
    plays: Mapping[str, Callable[[], Awaitable[JSON]]] = {
        "system": lambda: client.say(models.chat, prompt, system=SYSTEM),
        "tools": lambda: client.use_tools(models.chat, prompt, stream=stream),
        "structured": lambda: client.structure(models.chat, prompt),
        "vision": lambda: client.say(models.chat, prompt, image=True),
        "thinking": lambda: client.think(models.thinking, prompt, stream=stream),
        "thinking_tools": lambda: client.use_tools(models.thinking, prompt, think=True),
        "error_404": lambda: client.say(MISSING_MODEL, prompt),
        "models": client.models,
        "embeddings": lambda: client.embed(models.embeddings),
        "count": lambda: client.count(models.chat, prompt),
        "mid_stream_error": lambda: client.say(models.chat, prompt, stream=True),
        "cut": lambda: client.say(models.chat, prompt, stream=True),
    }
    act = plays.get(scenario.removesuffix("_stream"))
    return act() if act else client.say(models.chat, prompt, stream=stream)


SCENARIOS = (
    "chat",
    "chat_stream",
    "system",
    "tools",
    "tools_stream",
    "structured",
    "vision",
    "thinking",
    "thinking_stream",
    "thinking_tools",
    "error_401",
    "error_404",
    "error_429",
    "error_429_stream",
    "error_500",
    "error_529",
    "mid_stream_error",
    "cut",
    "models",
    "embeddings",
    "count",
)
