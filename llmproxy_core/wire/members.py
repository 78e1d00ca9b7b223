"""The members of one JSON object, taken one by one with their types checked; what is left is unknown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import attrs
import msgspec

from llmproxy_core.errors import BadRequest, ProxyError, UpstreamGarbage
from llmproxy_core.wire.splice import decode_array, decode_object

T = TypeVar("T")

Fail = Callable[[str, str], ProxyError]
"""Makes the error for the place (`messages[2].role`) and what was expected there ("a string")."""


def bad_request(place: str, expected: str) -> ProxyError:
    """The caller's mistake."""
    if not place:
        return BadRequest(f"The body must be {expected}", code="invalid_json")
    return BadRequest(f"'{place}' must be {expected}", param=place)


def garbage(place: str, expected: str) -> ProxyError:
    """The provider's mistake."""
    return UpstreamGarbage(f"The provider's answer cannot be understood: {place or 'the body'} is not {expected}")


@attrs.frozen
class Kind(Generic[T]):
    """A type of value: how to say it to a person, and how to decode it."""

    words: str
    decode: Callable[[bytes | msgspec.Raw], T]
    type: Any = None
    """What msgspec calls it; None where it has no one name."""


def _kind(words: str, type_: Any) -> Kind[Any]:
    return Kind(words, msgspec.json.Decoder(type_).decode, type_)


STRING: Kind[str] = _kind("a string", str)
BOOLEAN: Kind[bool] = _kind("true or false", bool)
INTEGER: Kind[int] = _kind("an integer", int)
NUMBER: Kind[float] = _kind("a number", int | float)
STRINGS: Kind[list[str]] = _kind("a list of strings", list[str])
STRING_OR_STRINGS: Kind[str | list[str]] = _kind("a string or a list of strings", str | list[str])


def decode(kind: Kind[T], text: bytes, place: str, fail: Fail) -> T:
    """The value of the JSON *text*, or *fail*'s error."""
    try:
        return kind.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise fail(place, kind.words) from error


OBJECT: Kind[dict[str, msgspec.Raw]] = Kind("an object", decode_object)
_ARRAY: Kind[list[msgspec.Raw]] = Kind("a list", decode_array)


def array(text: bytes, place: str, fail: Fail) -> list[bytes]:
    """The elements of the JSON array *text*, each as JSON text."""
    return [bytes(item) for item in decode(_ARRAY, text, place, fail)]


class RawMembers(Mapping[str, bytes]):
    """Members as JSON text, made on demand: most of a body is never looked at again."""

    __slots__ = ("_raws",)

    def __init__(self, raws: Mapping[str, msgspec.Raw]) -> None:
        self._raws = raws

    def __getitem__(self, name: str) -> bytes:
        return bytes(self._raws[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._raws)

    def __len__(self) -> int:
        return len(self._raws)


class Members:
    """Null counts as absent, for known and unknown members alike."""

    __slots__ = ("_left", "fail", "place")

    def __init__(self, text: bytes, place: str, fail: Fail) -> None:
        """*text* must be an object; *place* is where it stands, "" for the body itself."""
        self.place = place
        self.fail = fail
        self._left = decode(OBJECT, text, place, fail)

    @classmethod
    def of(cls, raws: dict[str, msgspec.Raw], fail: Fail) -> Members:
        """The members of a body that was decoded already; *raws* is used up."""
        members = cls.__new__(cls)
        members.place, members.fail, members._left = "", fail, raws
        return members

    def at(self, name: str) -> str:
        """The place of the member *name*."""
        return f"{self.place}.{name}" if self.place else name

    def peek(self, name: str) -> bytes | None:
        """*name* as JSON text, left where it is."""
        raw = self._left.get(name)
        return None if raw is None else bytes(raw)

    def raw(self, name: str) -> bytes | None:
        """Take *name* as JSON text."""
        raw = self._left.pop(name, None)
        if raw is None or (text := bytes(raw)) == b"null":
            return None
        return text

    def take(self, name: str, kind: Kind[T]) -> T | None:
        """Take *name* as a value of *kind*."""
        raw = self._left.pop(name, None)
        if raw is None:
            return None
        try:
            return kind.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            if bytes(raw) == b"null":
                return None
            raise self.fail(self.at(name), kind.words) from error

    def need(self, name: str, kind: Kind[T]) -> T:
        """Take *name*, which must be there."""
        value = self.take(name, kind)
        if value is None:
            raise self.fail(self.at(name), kind.words)
        return value

    def object(self, name: str) -> Members | None:
        """Take *name* as an object."""
        text = self.raw(name)
        return None if text is None else Members(text, self.at(name), self.fail)

    def need_object(self, name: str) -> Members:
        """Take *name*, which must be there, as an object."""
        found = self.object(name)
        if found is None:
            raise self.fail(self.at(name), OBJECT.words)
        return found

    def array(self, name: str) -> list[bytes]:
        """Take *name* as the elements of a list; none when it is absent."""
        text = self.raw(name)
        return [] if text is None else array(text, self.at(name), self.fail)

    def leave(self, name: str, text: bytes) -> None:
        """Make *text* one of the members that nobody took: an unknown one of an object whose members stand for ours."""
        self._left[name] = msgspec.Raw(text)

    def keep(self, inner: Members) -> None:
        """
        Make what nobody took of *inner*, an object somewhere in this one, members that nobody took here.

        They get the path to them as their names (`json_schema.NAME`), so that who writes another protocol tells of it.
        """
        path = inner.place.removeprefix(self.place).removeprefix(".")
        self._left |= {f"{path}.{name}": raw for name, raw in inner._left.items()}

    def rest(self, prefix: str = "") -> dict[str, bytes]:
        """What nobody took and is not null; *prefix* goes before the names (`function.` for a nested object)."""
        return {prefix + name: text for name, raw in self._left.items() if (text := bytes(raw)) != b"null"}
