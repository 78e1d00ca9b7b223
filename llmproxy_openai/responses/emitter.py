"""Events of a stream, numbered as they are made."""

from __future__ import annotations

from collections.abc import Mapping

from llmproxy_core.wire import decode_object, encode, join_object, with_members


class Emitter:
    """Each event has its type twice, and the next number."""

    __slots__ = ("_out", "_templates", "sequence")

    def __init__(self) -> None:
        self._out: list[bytes] = []
        self.sequence = 0
        """The number of the next event."""
        self._templates: dict[str, dict[str, bytes]] = {}
        """The provider's own events that tell once more what was said, by item and by type."""

    def keep(self, kind: str, item_id: str, template: bytes) -> None:
        """Have the next event of the type *kind* of the item *item_id* take the form of the provider's *template*."""
        self._templates.setdefault(item_id, {})[kind] = template

    def forget(self, item_id: str) -> None:
        """The item *item_id* has ended: nothing more of it is told."""
        self._templates.pop(item_id, None)

    def emit(
        self, kind: str, members: Mapping[str, bytes], template: bytes | None = None, item_id: str | None = None
    ) -> None:
        """Make an event of *item_id*. *template* is the provider's own, of which other members stay as they are."""
        if template is None and item_id is not None and self._templates:
            template = self._templates.get(item_id, {}).pop(kind, None)
        number = encode(self.sequence)
        self.sequence += 1
        if template is None:
            told = b"," + join_object(members)[1:] if members else b"}"
            data = b'{"type":"%b","sequence_number":%b%b' % (kind.encode(), number, told)
        else:
            data = with_members(template, {"sequence_number": number, **members})
        self._out.append(b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n")

    def told(self, kind: str, item_id: str, member: str, type_: bytes) -> bytes | None:
        """
        The object *member* of the provider's own event of the type *kind*, where its type is *type_* (JSON).

        The event is one of the item *item_id*.
        """
        template = self._templates.get(item_id, {}).get(kind)
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
