"""
JSON as text: the strict check of request bodies at the door, and changes to single top-level members by
splicing.

What this accepts means the same to every conforming parser: UTF-8 without a byte order mark, one object, no
member twice at the top level, no lone surrogate, no number that overflows (RFC 8259 sections 4, 6 and 8; RFC
7493). Its errors are BadRequest with one of these codes: invalid_json, invalid_encoding, duplicate_member,
json_too_complex. They name a byte offset or a top-level member and echo nothing else of the body.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import attrs
import msgspec

from llmproxy_core.errors import BadRequest


@attrs.frozen
class Limits:
    """How much structure a body may have; its size is bounded before it is read."""

    max_depth: int = attrs.field(default=64, validator=attrs.validators.ge(1))
    """Arrays and objects inside each other, the outermost object included."""
    max_nodes: int = attrs.field(default=100_000, validator=attrs.validators.ge(1))
    """Values of every kind; an empty array or object may count twice."""
    max_number_digits: int = attrs.field(default=64, validator=[attrs.validators.ge(1), attrs.validators.le(200)])
    """Digits in a row; so few that only an exponent of three digits can overflow a double."""
    _most_small: int = attrs.field(init=False, repr=False, eq=False)
    """Bytes of a body that cannot have too many values, and is looked through at no cost."""
    _too_long: bytes = attrs.field(init=False, repr=False, eq=False)
    """Too many digits in a row, each a 0."""

    @_most_small.default
    def _made_most_small(self) -> int:
        return min(_MAX_SMALL_BYTES, self.max_nodes)

    @_too_long.default
    def _made_too_long(self) -> bytes:
        return b"0" * (self.max_number_digits + 1)


_MAX_SMALL_BYTES = 65_536
DEFAULT_LIMITS = Limits()


class Span(NamedTuple):
    """Where a top-level member stands in its body: key at *start*, value from *value_start* to *end*."""

    start: int
    value_start: int
    end: int


class TopLevel:
    """A checked body and its top-level members as JSON text, in their order."""

    __slots__ = ("_raws", "_spans", "_values", "body", "names")

    def __init__(
        self, body: bytes, raws: dict[str, msgspec.Raw] | None = None, values: Mapping[str, Any] | None = None
    ) -> None:
        """*body* is checked. *values*: all members, decoded; without them *raws* must be given."""
        self.body = body
        self._raws = raws
        self._values = values
        self.names: Collection[str] = (raws or ()) if values is None else values
        """Of the members."""
        self._spans: dict[str, Span] | None = None

    @property
    def raws(self) -> dict[str, msgspec.Raw]:
        if self._raws is None:
            self._raws = _decode_members(self.body)
        return self._raws

    def text(self, name: str) -> bytes | None:
        """A member as JSON text, of a large body not always the very bytes; None when it is not there, or null."""
        raws = self._raws
        if raws is None:
            if self._values is not None:
                value = self._values.get(name)
                return None if value is None else msgspec.json.encode(value)
            raws = self.raws
        raw = raws.get(name)
        return None if raw is None or (text := bytes(raw)) == b"null" else text

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a member, decoded at each call; *default* when there is no such member."""
        raw = self.raws.get(name)
        return default if raw is None else msgspec.json.decode(raw)

    @property
    def spans(self) -> dict[str, Span]:
        """Where each member stands; found at the first use."""
        if self._spans is None:
            self._spans = _find_spans(self.body, self.raws)
        return self._spans

    def splice(self, edits: Mapping[str, bytes | None]) -> bytes:
        """
        The body with each member of *edits* set to that JSON text, or removed where it is None.

        A member that is not there yet is appended; removing one that is not there changes nothing. Every
        other byte and the order of the members stay. The texts are trusted to be JSON.
        """
        names = self.names
        added = [
            msgspec.json.encode(name) + b":" + value
            for name, value in edits.items()
            if value is not None and name not in names
        ]
        if any(map(names.__contains__, edits)):
            cuts, any_left = _cuts(self.spans, edits)
        else:  # as a stream asks for its usage: it does not matter where the members stand
            cuts, any_left = [], bool(names)
        if added:
            end = _end_of_members(self.body)
            cuts.append((end, end, b",".join([b"", *added] if any_left else added)))
        return _apply(self.body, cuts)


def scan(body: bytes, limits: Limits = DEFAULT_LIMITS, *, ahead: bool = False) -> TopLevel:
    """
    Check *body* and find its top-level members; BadRequest when it is no acceptable JSON object.

    Of a nested member that is named twice the last counts, as it does to the decoder. *ahead* is for who looks at a
    body before its reader does: the next scan of the same object finds this result, however long it is.
    """
    if (found := _ahead.found) is not None and limits is DEFAULT_LIMITS:
        _ahead.found = None
        if found.body is body:
            return found
    if len(body) > limits._most_small:
        found = _scan_large(body, limits)
        if ahead:
            _ahead.found = found
        return found
    if not body.isascii():
        _check_utf8(body)
    raws = _decode_members(body)
    # Cheap bounds that also count what is in strings decide first; the exact checks run where those fail.
    shape = body.translate(_SHAPE)
    # rfind, since text has fewer digits (the first byte) than letters "e" (near the last).
    if shape.rfind(limits._too_long) >= 0:
        _check_digits(raws, limits)
    if shape.rfind(b"0e000") >= 0:
        _check_values(raws, limits)
    elif len(shape) - len(shape.replace(b"[", b"", limits.max_depth + 1)) > limits.max_depth:
        _check_depth(raws, limits)  # `count` looks at byte after byte, which takes longer than all else here
    found = TopLevel(body, raws)
    if limits is DEFAULT_LIMITS:
        _ahead.found = found  # a request's head is read of it, and then perhaps its conversation
    return found


class _Ahead:
    """What was found in the last body, unless it is long and was not read ahead: the next scan of it finds that."""

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: TopLevel | None = None


_ahead = _Ahead()


def _scan_large(body: bytes, limits: Limits) -> TopLevel:
    """As many passes over the bytes as the bounds take cost more than decoding: there are long texts in it."""
    # Before decoding: millions of tiny members would cost seconds and gigabytes.
    has_few_nodes = len(body) <= 20 * limits.max_nodes or _has_few_nodes(body, limits)
    has_digits = _may_have_digits(body, limits)
    if has_few_nodes and not has_digits and (values := _values_within(body, limits)) is not None:
        return TopLevel(body, values=values)
    # From here on it is found out what is wrong with it, if anything is.
    _check_utf8(body)
    if not has_few_nodes:
        raise _too_many(limits)
    raws = _decode_members(body)
    if has_digits:
        _check_digits(raws, limits)
    _check_values(raws, limits)
    return TopLevel(body, raws)


def _values_within(body: bytes, limits: Limits) -> dict[str, Any] | None:
    """
    All members, decoded in one pass; None when the body is no object in UTF-8, names one twice, or is beyond a bound.
    """
    try:
        keyed = _VALUES.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    values = {str(key): value for key, value in keyed.items()}
    is_deeper, nodes = _measure(values, limits.max_depth)
    return None if is_deeper or nodes >= limits.max_nodes or len(values) < len(keyed) else values


def read_object(body: bytes, limits: Limits = DEFAULT_LIMITS) -> dict[str, Any]:
    """The object in *body*, checked as by `scan` and decoded whole."""
    scan(body, limits)
    decoded: dict[str, Any] = msgspec.json.decode(body)
    return decoded


def members(body: bytes) -> dict[str, Span]:
    """Where each top-level member of *body* stands. BadRequest when it is no JSON object or names one twice."""
    return _top_level(body).spans


def set_member(body: bytes, name: str, raw_value: bytes) -> bytes:
    """*body* with one member set (see `TopLevel.splice`). BadRequest as `members`."""
    return _top_level(body).splice({name: raw_value})


def remove_member(body: bytes, name: str) -> bytes:
    """*body* without one member (see `TopLevel.splice`). BadRequest as `members`."""
    return _top_level(body).splice({name: None})


def with_changes(body: bytes, edits: Mapping[str, bytes | None]) -> bytes:
    """*body* with members set and removed (see `TopLevel.splice`). BadRequest as `members`."""
    return _top_level(body).splice(edits)


def _top_level(body: bytes) -> TopLevel:
    return TopLevel(body, _decode_members(body))


# -- decoding ------------------------------------------------------------------------------------------------


class _Key(str):
    """A member's name that equals only itself, so that a dict keeps both of two equal names."""

    __slots__ = ()
    __eq__ = object.__eq__
    __hash__ = object.__hash__


_make_key: Callable[..., Any] = type.__call__  # called as (_Key, name): no Python frame per member
_decode_plainly = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_DECODER = msgspec.json.Decoder(dict[_Key, msgspec.Raw], dec_hook=_make_key)
_VALUES = msgspec.json.Decoder(dict[_Key, Any], dec_hook=_make_key)


def _decode_members(body: bytes) -> dict[str, msgspec.Raw]:
    """The members; grammar and surrogates are checked all the way down, UTF-8 and the range of numbers not."""
    try:
        raws = _decode_plainly(body)
        length = 1  # of these members without any space; plainly added up, of so few `sum(map(…))` is dearer
        for name, raw in raws.items():
            length += len(name) + len(raw) + 4
        more = len(body) - length
        if not more or (more == 2 * len(raws) - 1 and _is_as_dumped(body, raws)):
            return raws  # there is no other one, that one of these took the place of
        keyed = _DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise BadRequest("The body must be a JSON object", code="invalid_json") from error
    except msgspec.DecodeError as error:
        raise _malformed(body, error) from error
    except UnicodeDecodeError as error:
        raise BadRequest("A member's name is not UTF-8", code="invalid_encoding") from error
    except RecursionError as error:
        raise BadRequest("The body is nested too deep", code="json_too_complex") from error
    raws = {str(key): raw for key, raw in keyed.items()}
    if len(raws) < len(keyed):
        raise _duplicate(keyed)
    return raws


def _is_as_dumped(body: bytes, raws: Mapping[str, msgspec.Raw]) -> bool:
    """Whether *body* is these members and no other, a space behind each comma and colon as `json.dumps` writes them."""
    return body == b"{%b}" % b", ".join([b'"%b": %b' % (name.encode(), raw) for name, raw in raws.items()])


def _malformed(body: bytes, error: msgspec.DecodeError) -> BadRequest:
    if 0 in body[:4]:
        return BadRequest("The body looks like UTF-16 or UTF-32; send UTF-8", code="invalid_encoding")
    detail = str(error).removeprefix("JSON is malformed: ")
    if "truncated" in detail:
        # The decoder says the same of half a surrogate pair with less than the other half's length after it.
        half = _SURROGATE.search(body, max(0, len(body) - 16))
        detail = f"lone surrogate (byte {half.start()})" if half else f"it ends too early (byte {len(body)})"
    return BadRequest(f"The body is not valid JSON: {detail}", code="invalid_json")


_SURROGATE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}")


def _duplicate(names: Mapping[_Key, object]) -> BadRequest:
    seen: set[str] = set()
    for key in names:
        name = str(key)
        if name in seen:
            return BadRequest(f"The body names the member {_shown(name)} twice", code="duplicate_member")
        seen.add(name)
    raise AssertionError("no duplicate")  # pragma: no cover - called only when there is one


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 64 else name[:64] + "…")


# -- checks --------------------------------------------------------------------------------------------------

_SHAPE = bytes.maketrans(b"123456789+E{", b"0000000000e[")
"""Digits (and the plus of an exponent) become 0, exponents e, and both kinds of opening bracket [."""


def _check_utf8(body: bytes) -> None:
    if body.startswith(b"\xef\xbb\xbf"):
        raise BadRequest("The body begins with a byte order mark; send UTF-8 without", code="invalid_encoding")
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"The body is not UTF-8 (byte {error.start})", code="invalid_encoding") from error


def _has_few_nodes(body: bytes, limits: Limits) -> bool:
    if body.count(b",") + body.count(b"[") + body.count(b"{") < limits.max_nodes:
        return True
    structure = _outside_strings(body, max_quotes=4 * limits.max_nodes)  # a node: a key and a value at most
    if structure is None:
        return False
    return structure.count(b",") + structure.translate(_SHAPE).count(b"[") < limits.max_nodes


def _too_many(limits: Limits) -> BadRequest:
    return BadRequest(f"The body has more than {limits.max_nodes} values", code="json_too_complex")


def _too_deep(name: str, limits: Limits) -> BadRequest:
    return BadRequest(f"{_shown(name)} is nested deeper than {limits.max_depth} levels", code="json_too_complex")


def _may_have_digits(body: bytes, limits: Limits) -> bool:
    """Whether *body* may have too many digits in a row; few of its bytes are enough to see that most have not."""
    step = (limits.max_number_digits + 1) // 2  # two of these bytes are in each run that is too long
    some = body[::step].translate(_SHAPE)
    at = some.find(b"00")
    for _ in range(_MOST_LOOKS):
        if at < 0:
            return False
        if body[at * step : at * step + step + 1].isdigit():
            return True
        at = some.find(b"00", at + 1)
    # Lists of numbers: there every eighth byte costs less.
    too_long = b"0" * ((limits.max_number_digits + 1) // 8)
    return body[::8].translate(_SHAPE).find(too_long) >= 0


_MOST_LOOKS = 2_000


def _check_digits(raws: Mapping[str, msgspec.Raw], limits: Limits) -> None:
    for name, raw in raws.items():
        structure = _outside_strings(bytes(raw)) or b""
        if limits._too_long in structure.replace(b"+", b" ").translate(_SHAPE):
            message = f"A number in {_shown(name)} has more than {limits.max_number_digits} digits in a row"
            raise BadRequest(message, code="json_too_complex")


def _check_values(raws: Mapping[str, msgspec.Raw], limits: Limits) -> None:
    """Decode everything: that finds numbers out of range, and depth and nodes can be counted."""
    nodes = 1 + len(raws)
    for name, raw in raws.items():
        try:
            value = msgspec.json.decode(raw)
        except msgspec.ValidationError as error:
            raise BadRequest(f"A number in {_shown(name)} is out of range", code="invalid_json") from error
        except RecursionError as error:
            raise _too_deep(name, limits) from error
        is_deeper, inner_nodes = _measure(value, limits.max_depth - 1)
        if is_deeper:
            raise _too_deep(name, limits)
        nodes += inner_nodes
        if nodes > limits.max_nodes:
            raise _too_many(limits)


def _measure(value: object, max_depth: int) -> tuple[bool, int]:
    """Whether containers in *value* stand in each other more often than that; and how many values they hold."""
    nodes = 0
    level = [value] if isinstance(value, dict | list) else []
    while level and max_depth:
        max_depth -= 1
        nodes += sum(map(len, level))
        level = [
            child
            for container in level
            for child in (container.values() if type(container) is dict else container)
            if type(child) is dict or type(child) is list
        ]
    return bool(level), nodes


def _check_depth(raws: Mapping[str, msgspec.Raw], limits: Limits) -> None:
    for name, raw in raws.items():
        try:
            is_deeper = _is_deeper(bytes(raw), limits.max_depth - 1)
        except RecursionError:  # at how many levels depends on the interpreter
            is_deeper = True
        if is_deeper:
            raise _too_deep(name, limits)


def _is_deeper(text: bytes, max_depth: int) -> bool:
    """Whether containers in the value *text* stand in each other more than *max_depth* times."""
    if _is_shallow(text, max_depth):
        return False
    if max_depth < 1:
        return True
    # One layer off: each tool of a long list, say, is shallow by its own few brackets.
    children = _ELEMENTS.decode(text) if text.startswith(b"[") else _DECODER.decode(text).values()
    for child in map(bytes, children):
        if not _is_shallow(child, max_depth - 1) and _measure(msgspec.json.decode(child), max_depth - 1)[0]:
            return True
    return False


_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw])


def _is_shallow(text: bytes, max_depth: int) -> bool:
    """Whether *text* is no container, or has no more brackets than that, those in strings included."""
    if not text.startswith((b"{", b"[")):
        return True
    return len(text) <= 2 * max_depth or text.count(b"{") + text.count(b"[") <= max_depth


def _outside_strings(text: bytes, max_quotes: int | None = None) -> bytes | None:
    """
    What of JSON *text* stands outside strings, each string being one `"`. None when it has more quotes than
    that.

    Exact for valid JSON: an escaped backslash begins at the first of its run, so both are found from the
    left.
    """
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    if max_quotes is not None and text.count(b'"') > max_quotes:
        return None
    return b'"'.join(text.split(b'"')[::2])


# -- splicing ------------------------------------------------------------------------------------------------

_KEY = re.compile(
    rb"""[ \t\n\r]*+ [{,] [ \t\n\r]*+ ( "(?:[^"\\]++|\\.)*+" ) [ \t\n\r]*+ : [ \t\n\r]*+""",
    re.VERBOSE | re.DOTALL,
)


def _find_spans(body: bytes, raws: Mapping[str, msgspec.Raw]) -> dict[str, Span]:
    """Walk from key to key: the length of each value is known, so no value is read again."""
    spans = {}
    end = 0
    for name, raw in raws.items():
        key = _KEY.match(body, end)
        assert key is not None
        end = key.end() + memoryview(raw).nbytes
        spans[name] = Span(key.start(1), key.end(), end)
    return spans


def _end_of_members(body: bytes) -> int:
    """Behind the last member of the object that *body* is, or behind its bracket where it has none."""
    end = body.rfind(b"}")
    while body[end - 1] in b" \t\n\r":
        end -= 1
    return end


_Cut = tuple[int, int, bytes]
"""Bytes from, to, and what stands there instead."""


def _cuts(spans: Mapping[str, Span], edits: Mapping[str, bytes | None]) -> tuple[list[_Cut], bool]:
    """The changes to members that exist, and whether any member is left."""
    cuts: list[_Cut] = []
    any_left = False
    order = list(spans.items())
    for index, (name, span) in enumerate(order):
        value = edits.get(name, _UNCHANGED)
        if value is not None:
            any_left = True
            if value is not _UNCHANGED:
                cuts.append((span.value_start, span.end, value))
        elif any_left:  # with the comma before it
            cuts.append((order[index - 1][1].end, span.end, b""))
        else:  # none is left before it: with the comma after it, if any
            following = order[index + 1][1].start if index + 1 < len(order) else span.end
            cuts.append((span.start, following, b""))
    return cuts, any_left


_UNCHANGED = b""  # no JSON text is empty


def _apply(body: bytes, cuts: list[_Cut]) -> bytes:
    view = memoryview(body)  # a long body is copied once, not twice
    parts: list[bytes | memoryview] = []
    position = 0
    for start, end, replacement in cuts:
        parts += (view[position:start], replacement)
        position = end
    parts.append(view[position:])
    return b"".join(parts)
