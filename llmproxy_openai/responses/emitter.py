"""Events of a stream, numbered as they are made."""

from __future__ import annotations

from collections.abc import Mapping

from llmproxy_core.wire import decode_object, encode, join_object, with_members


class Emitter:
    """Each event has its type twice, and the next number."""

    __slots__ = ("_out", "sequence", "templates")

    def __init__(self) -> None:
        self._out: list[bytes] = []
        self.sequence = 0
        """The number of the next event."""
        self.templates: dict[str, bytes] = {}
        """The provider's own events that tell once more what was said, by type: the next of the type has their form."""

    def emit(self, kind: str, members: Mapping[str, bytes], template: bytes | None = None) -> None:
        """Make an event. *template* is the provider's own, of which other members stay as they are."""
        template = template or self.templates.pop(kind, None)
        number = encode(self.sequence)
        self.sequence += 1
        if template is None:
            data = join_object({"type": encode(kind), "sequence_number": number, **members})
        else:
            data = with_members(template, {"sequence_number": number, **members})
        self._out.append(b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n")

    def told(self, kind: str, member: str, type_: bytes) -> bytes | None:
        """The object *member* of the provider's own event of the type *kind*, where its type is *type_* (JSON)."""
        template = self.templates.get(kind)
        if template is None:
            return None
        text = bytes(decode_object(template).get(member, b"null"))
        is_of_type = text.startswith(b"{") and bytes(decode_object(text).get("type", b"")) == type_
        return text if is_of_type else None

    def take(self) -> bytes:
        """What was made since the last call."""
        out = b"".join(self._out)
        self._out.clear()
        return out
