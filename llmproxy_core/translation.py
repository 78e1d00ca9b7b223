"""What happens to a request on its way into another protocol: what is left out, what is changed, who is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from llmproxy_core.errors import Unsupported
from llmproxy_core.frozenmap import FrozenMap

T = TypeVar("T")

CHANGED_HEADER = "x-llmproxy-changed"
"""Tells a client what became of its request."""

_MOST_TOLD = 32
"""Changes that are told; a request of a thousand bad parts must not make a header of a thousand."""


class Translation:
    """
    One request being written in another protocol than it was read from. Made per call.

    What the other protocol cannot say is refused, or (*drops*) left out; what the map between the protocols prescribes
    (a clamped number, a cleaned schema) is done either way. Both are recorded, for the client and the log.
    """

    __slots__ = ("_names", "changes", "drops", "is_led", "llm", "max_output_tokens")

    def __init__(
        self,
        *,
        llm: str = "",
        drops: bool = False,
        max_output_tokens: int | None = None,
        names: Mapping[str, str] = FrozenMap(),
    ) -> None:
        """*names* are the client's own words for the fields of a ChatRequest (`Dialect.field_names`)."""
        self.llm = llm
        self.drops = drops
        self.max_output_tokens = max_output_tokens
        """What to ask for where the protocol needs a bound and the client gave none; None: nothing is configured."""
        self._names = names
        self.is_led = False
        """Whether the first message was said apart from the list, where places in the client's request begin."""
        self.changes: dict[str, str] = {}
        """A word for each place that was changed: `dropped`, `clamped`, `cleaned`, `defaulted`."""

    def refuse(self, place: str, what: str) -> None:
        """*what*, at *place* of the request, has no form here: Unsupported, or it is left out by the caller."""
        if not self.drops:
            raise self.told(unsupported(place, what))
        self.changes[self._own(place)] = "dropped"

    def attempt(self, write: Callable[[], T]) -> T | None:
        """What *write* gives; None when it raised Unsupported and such things are left out."""
        try:
            return write()
        except Unsupported as error:
            self.leave_out(error)
            return None

    def leave_out(self, error: Unsupported) -> None:
        """Leave out what raised *error*, when such things are left out; else it is raised on."""
        if not self.drops or error.param is None:
            raise error
        self.changes[self._own(error.param)] = "dropped"

    def advise(self, place: str) -> None:
        """Leave out advice: what changes neither what is answered nor its form."""
        self.changes[self._own(place)] = "dropped"

    def convert(self, place: str, word: str) -> None:
        """*place* was changed as the map prescribes; *word* says how: `clamped`, `cleaned`, `defaulted`, `dropped`."""
        self.changes[self._own(place)] = word

    def told(self, error: Unsupported) -> Unsupported:
        """*error* in the client's words, naming the LLM."""
        place = error.param
        if place is None or (self.llm and f"'{self.llm}'" in error.message):
            return error
        own = self._own(place)
        message = error.message.replace(f"('{place}')", f"('{own}')")
        llm = f"; the LLM is '{self.llm}'" if self.llm else ""
        return Unsupported(message + llm, param=own, code=error.code)

    def _own(self, place: str) -> str:
        field, dot, rest = place.partition(".")
        name, bracket, index = field.partition("[")
        if name == "messages" and bracket:
            return self._of_message(int(index.rstrip("]")), dot + rest)
        return self._names.get(name, name) + bracket + index + dot + rest

    def _of_message(self, position: int, rest: str) -> str:
        """The place *rest* of the message at *position*, which counts a prompt that clients say apart from the list."""
        prompt = self._names.get("system")
        if prompt is not None and self.is_led:
            if position == 0:
                return prompt
            position -= 1
        if rest.startswith(".content"):
            rest = "." + self._names.get("content", "content") + rest.removeprefix(".content")
        return f"{self._names.get('messages', 'messages')}[{position}]{rest}"

    def summary(self) -> str:
        """The value of the header: `logit_bias=dropped, temperature=clamped`; "" when nothing was changed."""
        told = [f"{place}={word}" for place, word in self.changes.items()]
        more = [f"and {len(told) - _MOST_TOLD} more"] if len(told) > _MOST_TOLD else []
        text = ", ".join(told[:_MOST_TOLD] + more)
        return text if text.isascii() and text.isprintable() else text.encode("ascii", "replace").decode()


def unsupported(place: str, what: str) -> Unsupported:
    """The error for *what*, at *place* of a request, that the protocol of the LLM has no words for."""
    return Unsupported(f"The protocol of the LLM cannot express {what} ('{place}')", param=place)
