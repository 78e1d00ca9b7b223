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
MISSING_MODEL = "no-such-model"


@attrs.frozen
class ToolCall:
    """A call that the model makes."""

    name: str
    arguments: Mapping[str, object]
    free: str | None = None  # what it gives a tool that takes a text instead of arguments

    @property
    def text(self) -> str:
        """The arguments as JSON, or the text."""
        return json.dumps(self.arguments, ensure_ascii=False) if self.free is None else self.free


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
    answered: Sequence[Result] = ()  # in the whole conversation
    images: Sequence[tuple[str, bytes]] = ()  # media type and content
    schema: Mapping[str, object] | None = None
    thinks: bool = False  # the request wants the model to think
    shows: bool = True  # and, where that has to be asked for, to show what it thought
    signatures: Sequence[str] = ()  # of thoughts that came back in the messages after the last text of the user

    def hear(self, text: str, *, begins: bool = True) -> None:
        """
        The user wrote *text*; one without a scenario leaves the one there was.

        *begins*: it stands by itself, not beside the results of tools.
        """
        self.text = text if "[" in text or not self.text else self.text
        if begins:
            self.results, self.signatures = (), ()

    def learn(self, result: Result) -> None:
        """A tool answered."""
        self.results, self.answered = [*self.results, result], [*self.answered, result]


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
