"""Which wire form is read or written, and how its mistakes are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from llmproxy_core.chat import JSONText, Raw
from llmproxy_core.errors import Unsupported
from llmproxy_core.node import node
from llmproxy_core.translation import Translation, unsupported
from llmproxy_core.wire.members import Fail, bad_request

T = TypeVar("T")

ADVICE = frozenset(
    {
        "betas",
        "cache_control",
        "created_by",
        "client_metadata",
        "context_management",
        "include",
        "labels",
        "metadata",
        "obfuscation",
        "prompt_cache_breakpoint",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning.context",
        "reasoning.mode",
        "reasoning_details",
        "safety_identifier",
        "store",
        "stream_options",
        "thinking_blocks",
        "truncation",
        "user",
    }
)
"""
Members of some protocol that change neither what is answered nor its form: who cannot say them leaves them out.

So are all members of objects under such a name.
"""

_EMPTY = (b"[]", b"{}", b'""', b"false")

_REPEATING = frozenset({"index", "parsed", "parsed_arguments"})
"""
Members that repeat what is said elsewhere, and that SDKs send back: the place of a node in its list, by which streams
are put together, and what they made of the node's JSON.
"""


@node
class Wire:
    """
    The wire form in hand.

    *api* marks the nodes read from it and recognises them when they are written again (`Api.form`). *own*: what is
    written was read from this wire form, so what only this one says may be said. *fail* makes the error of a reader.
    """

    api: str
    own: bool = False
    fail: Fail = bad_request
    translation: Translation | None = None
    """Where what is written was read from another protocol."""

    def kept(self, raw: Raw | None) -> JSONText | None:
        """The bytes of an untouched node of this wire form."""
        return raw.text if raw is not None and raw.api == self.api else None

    def unknown(self, extra: Mapping[str, JSONText], place: str, *nested_names: str) -> dict[str, JSONText]:
        """The unknown members of the node at *place* itself. Those of another protocol are refused, or left out."""
        if not extra:
            return {}
        if not self.own:
            self.refuse_unknown(extra, place)
            return {}
        prefixes = tuple(name + bracket for name in nested_names for bracket in ".[")
        return {key: text for key, text in extra.items() if not (prefixes and key.startswith(prefixes))}

    def refuse_unknown(self, extra: Mapping[str, JSONText], place: str) -> None:
        """
        The unknown members of the node at *place*, "" for the request itself: as `refuse_member`.

        Deeper than that an empty value, or false, says nothing: SDKs send back what they were given, whole.
        """
        for name, text in extra.items():
            if text not in _EMPTY or not (place or "." in name) or name in ADVICE:
                self.refuse_member(name, f"{place}.{name}" if place else name)

    def refuse_member(self, name: str, place: str) -> None:
        """
        A member that only another protocol knows: advice is left out, anything else refused. What repeats is no loss.

        *name* is its path in the node that was read (`Members.keep`), *place* its path in the request.
        """
        path = name.split(".")
        if path[-1] in _REPEATING:
            return
        if self.translation is None:
            raise unsupported(place, "a member of another protocol")
        if name in ADVICE or not ADVICE.isdisjoint(path):
            self.translation.advise(place)
        else:
            self.translation.refuse(place, "a member of another protocol")

    def attempt(self, write: Callable[[], T]) -> T | None:
        """What *write* gives; None when it cannot be said here, and such things are left out."""
        return write() if self.translation is None else self.translation.attempt(write)

    def leave_out(self, error: Unsupported) -> None:
        """Leave out what raised *error*, when such things are left out; else it is raised on."""
        if self.translation is None:
            raise error
        self.translation.leave_out(error)

    def refuse(self, place: str, what: str) -> None:
        """*what* cannot be said here: Unsupported, unless such things are left out."""
        if self.translation is None:
            raise unsupported(place, what)
        self.translation.refuse(place, what)

    def convert(self, place: str, word: str) -> None:
        """Record a change that the map between the protocols prescribes."""
        if self.translation is not None:
            self.translation.convert(place, word)


def nested(extra: Mapping[str, T], name: str) -> dict[str, T]:
    """The unknown members of the nested object *name*, which `Members.rest` keeps under dotted names."""
    prefix = name + "."
    return {key[len(prefix) :]: text for key, text in extra.items() if key.startswith(prefix)}
