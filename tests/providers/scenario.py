"""
What every fake provider is asked and says, whatever its protocol.

A test names its scenario in brackets in the last text it writes: "Say hello [chat]". A fake provider reads a request
of its protocol strictly into `Asked`, has `turn` decide, and writes the `Turn` in its protocol's own form.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Literal

import attrs

from tests.providers.refusal import Kind, Refusal

TEXT = "Grüße aus Köln 👋 – all is well."
SYSTEM = "Answer in rhymes."
THOUGHT = "A greeting is wanted. Both tools are needed."
STRUCTURED: Mapping[str, object] = {"city": "Köln", "population": 1087863}
SEEN = "A red pixel."
SCHEMA: Mapping[str, object] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "population": {"type": "integer"}},
    "required": ["city", "population"],
    "additionalProperties": False,
}
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC")
VECTOR = (0.5, -0.25, 1.0, 0.125)  # each is exact in four bytes
RETRY_AFTER_S = 7
COUNTED = 11  # the answer of an endpoint that counts tokens


@attrs.frozen
class ToolCall:
    """A call that the model makes."""

    name: str
    arguments: Mapping[str, object]

    @property
    def text(self) -> str:
        """The arguments as JSON."""
        return json.dumps(self.arguments, ensure_ascii=False)


@attrs.frozen
class Result:
    """What a tool answered."""

    name: str
    text: str


CALLS = (
    ToolCall("get_weather", {"city": "Köln", "days": 2}),
    ToolCall("get_time", {"zone": "Europe/Berlin"}),
)
RESULTS: Mapping[str, str] = {"get_weather": "12 °C", "get_time": "10:30"}
TOOLS: Sequence[tuple[str, str, Mapping[str, object]]] = (
    (
        "get_weather",
        "The weather of a city.",
        {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    ),
    (
        "get_time",
        "The time in a zone.",
        {
            "type": "object",
            "properties": {"zone": {"type": "string"}},
            "required": ["zone"],
            "additionalProperties": False,
        },
    ),
)
RESULTS_TEXT = f"It is {RESULTS['get_weather']} at {RESULTS['get_time']}."


@attrs.frozen
class Spent:
    """Tokens, as our own neutral usage counts them: *input* holds *cached*, and *output* holds *reasoning*."""

    input: int = 21
    cached: int = 5
    output: int = 13
    reasoning: int = 0


@attrs.define
class Asked:
    """A request, as far as the scenarios need it."""

    model: str
    stream: bool = False
    text: str = ""  # what the user wrote last
    system: str = ""
    tools: Sequence[str] = ()
    forced_tool: str | None = None
    results: Sequence[Result] = ()  # after the last text of the user
    images: Sequence[tuple[str, bytes]] = ()  # media type and content
    schema: Mapping[str, object] | None = None
    thinks: bool = False  # the request wants the model to think
    shows: bool = True  # and, where that has to be asked for, to show what it thought
    signatures: Sequence[str] = ()  # of thoughts that came back in the messages after the last text of the user


@attrs.frozen
class Turn:
    """What the model says: its thought, then text, then calls."""

    text: str = ""
    thought: str = ""
    calls: Sequence[ToolCall] = ()
    breaks: Literal["error", "cut"] | None = None  # how a stream fails after half of the text
    spent: Spent = Spent()

    @property
    def pieces(self) -> Sequence[str]:
        """The text as it is streamed."""
        return pieces(self.text)


def pieces(text: str, size: int = 7) -> Sequence[str]:
    """*text* in pieces of *size* characters."""
    return [text[at : at + size] for at in range(0, len(text), size)]


ERRORS: Mapping[str, Kind] = {
    "error_401": "auth",
    "error_404": "model",
    "error_429": "rate_limit",
    "error_500": "server",
    "error_529": "overloaded",
}
MISSING_MODEL = "no-such-model"


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
    match tag:
        case "chat":
            return Turn(TEXT)
        case "mid_stream_error":
            return Turn(TEXT, breaks="error")
        case "cut":
            return Turn(TEXT, breaks="cut")
        case "system":
            _needs(SYSTEM in asked.system, f"the system prompt {SYSTEM!r}, not {asked.system!r}")
            return Turn(TEXT)
        case "tools":
            return _tools(asked)
        case "thinking":
            _needs(asked.thinks, "to be asked for thinking")
            return Turn(TEXT, thought=THOUGHT, spent=Spent(reasoning=4))
        case "thinking_tools":
            return _thinking_tools(asked, must_return_thoughts=must_return_thoughts)
        case "structured":
            return _structured(asked)
        case "vision":
            _needs(list(asked.images) == [("image/png", PNG)], f"the one image, not {asked.images!r}")
            return Turn(SEEN)
        case _:
            raise Refusal("invalid", f"no scenario in the text {asked.text!r}")


def _tools(asked: Asked) -> Turn:
    _needs(sorted(asked.tools) == sorted(name for name, _, _ in TOOLS), f"both tools, not {asked.tools!r}")
    if not asked.results:
        return Turn(calls=CALLS)
    found = {result.name: result.text for result in asked.results}
    _needs(found.keys() == RESULTS.keys() and len(asked.results) == len(found), f"both results, not {asked.results!r}")
    for name, text in found.items():
        _needs(_says(text, RESULTS[name]), f"{RESULTS[name]!r} as the result of {name}, not {text!r}")
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
        _needs(asked.thinks, "to be asked for thinking")
        return attrs.evolve(said, thought=THOUGHT, spent=Spent(reasoning=4))
    # A client that could not keep the thought gets on when the model need not think in this turn.
    if must_return_thoughts and asked.thinks:
        _needs(bool(asked.signatures), "the thought that led to the calls")
    return said


def _structured(asked: Asked) -> Turn:
    if asked.schema is not None:
        properties = asked.schema.get("properties")
        _needs(properties == SCHEMA["properties"], f"the schema, not {asked.schema!r}")
        return Turn(json.dumps(STRUCTURED, ensure_ascii=False))
    # Before protocols had schemas for answers, clients forced a tool with that schema.
    _needs(asked.forced_tool is not None, "a schema for the answer")
    return Turn(calls=[ToolCall(str(asked.forced_tool), STRUCTURED)])


def _needs(holds: bool, what: str) -> None:
    if not holds:
        raise Refusal("invalid", f"this scenario needs {what}")
