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
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from llmproxy_core.errors import BadRequest
from llmproxy_core.jsonlimits import (
    DEFAULT_LIMITS,
    OBJECT,
    Key,
    Limits,
    check_large,
    check_size,
    check_small,
    check_utf8,
    shown,
)

__all__ = [
    "DEFAULT_LIMITS",
    "Limits",
    "Span",
    "TopLevel",
    "members",
    "read_object",
    "remove_member",
    "scan",
    "set_member",
]


class Span(NamedTuple):
    """Where a top-level member stands in its body: key at *start*, value from *value_start* to *end*."""

    start: int
    value_start: int
    end: int


class TopLevel:
    """A checked body and its top-level members as JSON text, in their order."""

    __slots__ = ("_spans", "body", "raws")

    def __init__(self, body: bytes, raws: dict[str, msgspec.Raw]) -> None:
        self.body = body
        self.raws = raws
        self._spans: dict[str, Span] | None = None

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
        cuts, any_left = _cuts(self.spans, edits)
        added = [
            msgspec.json.encode(name) + b":" + value
            for name, value in edits.items()
            if value is not None and name not in self.raws
        ]
        if added:
            end = max((span.end for span in self.spans.values()), default=self.body.index(b"{") + 1)
            cuts.append((end, end, b",".join([b"", *added] if any_left else added)))
        return _apply(self.body, cuts)


def scan(body: bytes, limits: Limits = DEFAULT_LIMITS) -> TopLevel:
    """
    Check *body* and find its top-level members; BadRequest when it is no acceptable JSON object.

    Of a nested member that is named twice the last counts, as it does to the decoder.
    """
    if not body.isascii():
        check_utf8(body)
    if len(body) <= min(_MAX_SMALL_BYTES, limits.max_nodes):
        raws = _decode_members(body)
        check_small(body, raws, limits)
    else:
        check_size(body, limits)
        raws = _decode_members(body)
        check_large(raws, limits)
    return TopLevel(body, raws)


_MAX_SMALL_BYTES = 65_536


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


def _top_level(body: bytes) -> TopLevel:
    return TopLevel(body, _decode_members(body))


# -- decoding ------------------------------------------------------------------------------------------------


def _decode_members(body: bytes) -> dict[str, msgspec.Raw]:
    """The members; grammar and surrogates are checked all the way down, UTF-8 and the range of numbers not."""
    try:
        keyed = OBJECT.decode(body)
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


def _duplicate(names: Mapping[Key, object]) -> BadRequest:
    seen: set[str] = set()
    for key in names:
        name = str(key)
        if name in seen:
            return BadRequest(f"The body names the member {shown(name)} twice", code="duplicate_member")
        seen.add(name)
    raise AssertionError("no duplicate")  # pragma: no cover - called only when there is one


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
