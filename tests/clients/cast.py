"""Who plays: the official clients, the providers behind the proxy, and what each client sees of each provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from tests.clients.play import SCENARIOS, Models
from tests.providers import anthropic, anthropic_request, gemini, gemini_request, mistral, openai, responses_request
from tests.providers.anthropic import Anthropic
from tests.providers.gemini import Gemini
from tests.providers.mistral import Mistral
from tests.providers.openai import OpenAI
from tests.providers.openai_responses import OpenAIResponses
from tests.providers.refusal import Kind
from tests.providers.scenario import (
    CALLS,
    COUNTED,
    RESULTS_TEXT,
    RETRY_AFTER_S,
    SEEN,
    STRUCTURED,
    TEXT,
    THOUGHT,
    VECTOR,
    Spent,
)
from tests.providers.server import FakeProvider

JSON = dict[str, Any]
ANYTHING = object()
"""What is expected where only the presence of the member counts."""


@attrs.frozen
class Provider:
    """A provider behind the proxy."""

    fake: Callable[[], FakeProvider]
    dialect: str
    llm: Mapping[str, str]  # the keys of its `[llm.NAME]`
    models: Models
    listed: tuple[str, ...]
    statuses: Mapping[Kind, int]
    thinks: bool = True  # its answers show thoughts
    shows_unasked: bool = True  # also to those who asked for thinking alone
    mark: str | None = None  # what a request has that brings back the thought of `thinking_tools`
    has_embeddings: bool = True
    counts: bool = True  # it has an endpoint that counts tokens


def _statuses(errors: Mapping[Kind, tuple[Any, ...]]) -> dict[Kind, int]:
    return {kind: error[0] for kind, error in errors.items()}


_GPT = Models("gpt-4.1", "o4-mini", "text-embedding-3-small")
PROVIDERS: Mapping[str, Provider] = {
    "openai": Provider(
        OpenAI,
        "openai",
        {"provider": "openai", "type": "chat"},
        _GPT,
        openai.MODELS,
        _statuses(openai.ERRORS),
        thinks=False,
        counts=False,
    ),
    "openai-responses": Provider(
        OpenAIResponses,
        "openai-responses",
        {"provider": "openai", "type": "responses"},
        _GPT,
        openai.MODELS,
        _statuses(openai.ERRORS),
        shows_unasked=False,
        mark=responses_request.ENCRYPTED,
    ),
    "anthropic": Provider(
        Anthropic,
        "anthropic",
        {"provider": "anthropic"},
        Models("claude-sonnet-4-6", "claude-sonnet-4-6", "claude-sonnet-4-6"),
        anthropic.MODELS,
        _statuses(anthropic.ERRORS),
        mark=anthropic_request.SIGNATURE,
        has_embeddings=False,
    ),
    "gemini": Provider(
        Gemini,
        "gemini",
        {"provider": "gemini"},
        Models("gemini-2.5-flash", "gemini-3-pro-preview", "gemini-embedding-001"),
        gemini.MODELS,
        _statuses(gemini.ERRORS),
        mark=gemini_request.SIGNATURE,
    ),
    "mistral": Provider(
        Mistral,
        "mistral",
        {"provider": "mistral"},
        Models("mistral-large-latest", "magistral-medium-latest", "mistral-embed"),
        mistral.MODELS,
        mistral.STATUSES,
        mark=THOUGHT,
        counts=False,
    ),
}


SHARING = ("openai", "mistral")
"""The protocols that share the path of chat completions."""


def told_route(provider: str, dialect: str) -> str:
    """The route to *provider* that says what its clients speak."""
    return f"{provider}-for-{dialect}"


@attrs.frozen
class Role:
    """One way to use an official client."""

    dialect: str
    own: str  # the provider it was made for
    stop: str  # its word for an end
    tools: str  # and for an end with calls
    lacks: frozenset[str] = frozenset()  # the scenarios it has no method for
    sees_thoughts: bool = True  # also those of a provider that has them not in this dialect's official form
    asks_to_see: bool = True  # its requests can say that thoughts are to be shown
    forgets: frozenset[str] = frozenset()  # the providers whose thoughts it does not send back beside the calls
    sees_headers: bool = True  # its errors show the headers of the answer
    says_who: bool = True  # its requests tell which protocol they speak, where a path is several protocols'

    def route(self, provider: Provider) -> str:
        """
        The route to *provider* for this client.

        One that does not say what it speaks is taken to speak the provider's own protocol, or else OpenAI's: what
        speaks another has a route that says it.
        """
        taken_for = provider.dialect if provider.dialect in SHARING else "openai"
        is_told = not self.says_who and self.dialect in SHARING and self.dialect != taken_for
        return told_route(provider.dialect, self.dialect) if is_told else provider.dialect

    @property
    def scenarios(self) -> tuple[str, ...]:
        """What it can be asked."""
        return tuple(each for each in SCENARIOS if each not in self.lacks)


def _lacks(*scenarios: str) -> frozenset[str]:
    return frozenset(scenarios)


_OPENAI = Role("openai", "openai", "stop", "tool_calls", _lacks("count"), asks_to_see=False)
_RESPONSES = Role("openai-responses", "openai-responses", "completed", "completed", _lacks("embeddings"))
_ANTHROPIC = Role("anthropic", "anthropic", "end_turn", "tool_use", _lacks("embeddings"))
_GEMINI = Role("gemini", "gemini", "STOP", "STOP")
_MISTRAL = Role("mistral", "mistral", "stop", "tool_calls", _lacks("count"), asks_to_see=False)


def _ai(role: Role, *lacks: str, **more: Any) -> Role:
    """The AI SDK has words of its own, no lists of models and no counts, and one User-Agent for all protocols."""
    lacking = _lacks("models", "count", *lacks)
    return attrs.evolve(role, stop="stop", tools="tool-calls", lacks=lacking, says_who=False, **more)


_THINKERS = frozenset(name for name, provider in PROVIDERS.items() if provider.mark)

PYTHON_CLIENTS: Mapping[str, Role] = {
    "python-openai-chat": _OPENAI,
    "python-openai-responses": _RESPONSES,
    "python-anthropic": _ANTHROPIC,
    "python-google-genai": _GEMINI,
    # Signatures come with the thought, which it keeps; a call's own signature it does not know.
    "python-mistralai": attrs.evolve(_MISTRAL, forgets=frozenset({"gemini"})),
}
NODE_CLIENTS: Mapping[str, Role] = {
    "npm-openai-chat": _OPENAI,
    "npm-openai-responses": _RESPONSES,
    "npm-anthropic": _ANTHROPIC,
    "npm-google-genai": attrs.evolve(_GEMINI, sees_headers=False),
    # It reads only what OpenAI documents.
    "ai-openai-chat": _ai(_OPENAI, sees_thoughts=False, forgets=_THINKERS),
    "ai-openai-responses": _ai(_RESPONSES, "embeddings"),
    "ai-anthropic": _ai(_ANTHROPIC, "embeddings"),
    "ai-google": _ai(_GEMINI),
    # Of a thought it keeps the text.
    "ai-mistral": _ai(_MISTRAL, forgets=_THINKERS - {"mistral"}),
}


def expected(role: Role, provider: Provider, scenario: str, *, direct: bool = False) -> JSON:
    """
    What the client must see of *provider* in *scenario*, or at least these members of it.

    *direct*: no proxy between them.
    """
    spent = {"input": Spent().input, "output": Spent().output}
    said = {"text": TEXT, "finish": role.stop, **spent}
    calls = [[call.name, dict(call.arguments)] for call in CALLS]
    looped = {"calls": calls, "finish": role.tools, "text": RESULTS_TEXT}
    shows = provider.thinks and (provider.shows_unasked or role.asks_to_see)
    thought = {"thought": THOUGHT if shows and role.sees_thoughts else ""}
    if scenario.startswith("error_"):
        return {"error": _error(role, provider, scenario.removesuffix("_stream"), direct=direct)}
    table: Mapping[str, JSON] = {
        "vision": {**said, "text": SEEN},
        "tools": looped,
        "structured": {"value": dict(STRUCTURED)},
        "thinking": {"text": TEXT, **thought, **spent},
        "thinking_tools": {**looped, **thought},
        "models": {"models": sorted(provider.listed)},
        "embeddings": {"vectors": [list(VECTOR)] * 2} if provider.has_embeddings else {"error": {"status": 400}},
        "count": {"tokens": COUNTED if provider.counts else ANYTHING},
        "mid_stream_error": {"error": ANYTHING},
        "cut": {"error": ANYTHING},
    }
    return table.get(scenario.removesuffix("_stream"), said)


def _error(role: Role, provider: Provider, scenario: str, *, direct: bool) -> JSON:
    statuses = provider.statuses
    match scenario:
        case "error_401":  # our key is no business of the caller's
            return {"status": statuses["auth"] if direct else 502}
        case "error_404":
            return {"status": statuses["model"]}
        case "error_429":
            told = role.sees_headers and not (direct and provider.dialect == "gemini")
            return {"status": 429, "retry_after": str(RETRY_AFTER_S) if told else None}
        case "error_500":
            return {"status": statuses["server"]}
        case _:  # each protocol has its own status for this
            return {"status": statuses["overloaded"] if direct else 529 if role.dialect == "anthropic" else 503}


def differences(seen: JSON, wanted: JSON) -> list[str]:
    """How *seen* differs from *wanted*, in sentences; empty when every wanted member is there as it should be."""
    found = []
    for name, value in wanted.items():
        if name not in seen:
            found.append(f"no {name}")
        elif isinstance(value, dict) and isinstance(seen[name], dict) and name == "error":
            found += differences(seen[name], value)
        elif value is ANYTHING:
            if not seen[name]:
                found.append(f"{name} is {seen[name]!r}")
        elif seen[name] != value:
            found.append(f"{name} is {seen[name]!r}, not {value!r}")
    return found
