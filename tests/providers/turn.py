"""What the model says to a request, whatever its protocol: decided by the scenario that the request names."""

import json
from collections.abc import Callable, Mapping

import attrs

from tests.providers import agents
from tests.providers.refusal import Kind, Refusal, needs
from tests.providers.scenario import (
    CALLS,
    MISSING_MODEL,
    PNG,
    RESULTS,
    RESULTS_TEXT,
    SCHEMA,
    SEEN,
    STRUCTURED,
    SYSTEM,
    TEXT,
    THOUGHT,
    TOOLS,
    Asked,
    Spent,
    ToolCall,
    Turn,
)

ERRORS: Mapping[str, Kind] = {
    "error_401": "auth",
    "error_404": "model",
    "error_429": "rate_limit",
    "error_500": "server",
    "error_529": "overloaded",
}


def turn(asked: Asked, *, must_return_thoughts: bool = False) -> Turn:
    """
    What the model says to *asked*; Refusal when the request lacks what its scenario is about.

    *must_return_thoughts*: the provider refuses results of tools whose thought did not come back with its signature.
    """
    if asked.model == MISSING_MODEL:
        raise Refusal("model", f"The model `{asked.model}` does not exist.")
    tag = asked.text.rpartition("[")[2].partition("]")[0].removesuffix("_stream")
    if tag in ERRORS:
        raise Refusal(ERRORS[tag], f"This is the failure of the scenario {tag}.")
    if tag == "thinking_tools":
        return _thinking_tools(asked, must_return_thoughts=must_return_thoughts)
    if tag not in _SCENARIOS:
        raise Refusal("invalid", f"no scenario in the text {asked.text!r}")
    return _SCENARIOS[tag](asked)


def _system(asked: Asked) -> Turn:
    needs(SYSTEM in asked.system, f"the system prompt {SYSTEM!r}, not {asked.system!r}")
    return Turn(TEXT)


def _thinking(asked: Asked) -> Turn:
    needs(asked.thinks, "to be asked for thinking")
    return Turn(TEXT, thought=THOUGHT, spent=Spent(reasoning=4))


def _vision(asked: Asked) -> Turn:
    needs(list(asked.images) == [("image/png", PNG)], f"the one image, not {asked.images!r}")
    return Turn(SEEN)


def _tools(asked: Asked) -> Turn:
    needs(sorted(asked.tools) == sorted(name for name, _, _ in TOOLS), f"both tools, not {asked.tools!r}")
    if not asked.results:
        return Turn(calls=CALLS)
    found = {result.name: result.text for result in asked.results}
    needs(found.keys() == RESULTS.keys() and len(asked.results) == len(found), f"both results, not {asked.results!r}")
    for name, text in found.items():
        needs(_says(text, RESULTS[name]), f"{RESULTS[name]!r} as the result of {name}, not {text!r}")
    return Turn(RESULTS_TEXT)


def _says(text: str, expected: str) -> bool:
    """Whether *text* is *expected*, or an object that has it, as some protocols wrap results."""
    if text == expected:
        return True
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return isinstance(value, dict) and expected in value.values()


def _thinking_tools(asked: Asked, *, must_return_thoughts: bool) -> Turn:
    said = _tools(asked)
    if said.calls:
        needs(asked.thinks, "to be asked for thinking")
        return attrs.evolve(said, thought=THOUGHT, spent=Spent(reasoning=4))
    # A client that could not keep the thought gets on when the model need not think in this turn.
    if must_return_thoughts and asked.thinks:
        needs(bool(asked.signatures), "the thought that led to the calls")
    return said


def _structured(asked: Asked) -> Turn:
    if asked.schema is not None:
        properties = asked.schema.get("properties")
        needs(properties == SCHEMA["properties"], f"the schema, not {asked.schema!r}")
        return Turn(json.dumps(STRUCTURED, ensure_ascii=False))
    # Before protocols had schemas for answers, clients forced a tool with that schema.
    needs(asked.forced_tool is not None, "a schema for the answer")
    return Turn(calls=[ToolCall(str(asked.forced_tool), STRUCTURED)])


_SCENARIOS: Mapping[str, Callable[[Asked], Turn]] = {
    "chat": lambda _: Turn(TEXT),
    "mid_stream_error": lambda _: Turn(TEXT, breaks="error"),
    "cut": lambda _: Turn(TEXT, breaks="cut"),
    "system": _system,
    "tools": _tools,
    "thinking": _thinking,
    "structured": _structured,
    "vision": _vision,
    "claude_code": agents.claude_code,
    "codex": agents.codex,
}
