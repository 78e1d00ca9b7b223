"""Which wire form is read or written, and how its mistakes are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import attrs

from llmproxy_core.chat import JSONText, Raw
from llmproxy_core.errors import Unsupported
from llmproxy_openai.members import Fail, bad_request

T = TypeVar("T")


@attrs.frozen
class Wire:
    """
    The wire form in hand.

    *api* marks the nodes read from it and recognises them when they are written again. *own*: what is written
    was read from this wire form, so what only this one says may be said. *fail* makes the error of a reader.
    """

    api: str
    own: bool = False
    fail: Fail = bad_request

    def kept(self, raw: Raw | None) -> JSONText | None:
        """The bytes of an untouched node of this wire form."""
        return raw.text if raw is not None and raw.api == self.api else None

    def unknown(self, extra: Mapping[str, JSONText], place: str, *nested_names: str) -> dict[str, JSONText]:
        """The unknown members of the node at *place* itself. Unsupported when they are another protocol's."""
        if extra and not self.own:
            name = next(iter(extra))
            raise unsupported(f"{place}.{name}" if place else name, "a member of another protocol")
        prefixes = tuple(name + "." for name in nested_names)
        return {key: text for key, text in extra.items() if not (prefixes and key.startswith(prefixes))}


def unsupported(place: str, what: str) -> Unsupported:
    """The error for *what* OpenAI's protocol has no words for."""
    return Unsupported(f"The OpenAI protocol cannot express {what} ('{place}')", param=place)


def nested(extra: Mapping[str, T], name: str) -> dict[str, T]:
    """The unknown members of the nested object *name*, which `Members.rest` keeps under dotted names."""
    prefix = name + "."
    return {key[len(prefix) :]: text for key, text in extra.items() if key.startswith(prefix)}
