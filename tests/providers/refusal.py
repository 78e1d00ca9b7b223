"""How a fake provider reads a request: strictly, as the real one does, and with a reason when it refuses."""

import base64
import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal

Kind = Literal["invalid", "auth", "model", "rate_limit", "server", "overloaded"]
JSON = dict[str, Any]


class Refusal(Exception):
    """The provider answers with an error of this kind."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


def invalid(message: str) -> Refusal:
    """What the caller wrote is against the protocol."""
    return Refusal("invalid", message)


def check(holds: object, message: str) -> None:
    """Refuse the request with *message* unless *holds*."""
    if not holds:
        raise invalid(message)


def needs(holds: object, what: str) -> None:
    """Refuse the request unless *holds*: its scenario needs *what*."""
    check(holds, f"this scenario needs {what}")


def is_object(value: object, place: str) -> JSON:
    """*value*, which must be a JSON object."""
    if not isinstance(value, dict):
        raise invalid(f"{place}: expected an object, got {value!r}")
    return value


def is_list(value: object, place: str) -> list[Any]:
    """*value*, which must be a JSON array with something in it."""
    if not isinstance(value, list) or not value:
        raise invalid(f"{place}: expected an array that is not empty, got {value!r}")
    return value


def is_text(value: object, place: str) -> str:
    """*value*, which must be a string with something in it."""
    if not isinstance(value, str) or not value:
        raise invalid(f"{place}: expected a string that is not empty, got {value!r}")
    return value


def members(value: object, place: str, required: Iterable[str], optional: Collection[str] = ()) -> JSON:
    """The object *value*, which must have every member of *required* and no other than these and *optional*."""
    found = is_object(value, place)
    for name in required:
        check(name in found, f"{place}.{name}: Field required")
    allowed = {*required, *optional}
    for name in found:
        check(name in allowed, f"{place}.{name}: Extra inputs are not permitted")
    return found


def names(text: str) -> frozenset[str]:
    """The names in *text*, which has them with spaces between."""
    return frozenset(text.split())


def within(mapping: Mapping[str, Any], name: str, low: float, high: float) -> None:
    """Check that the number *name*, if it is there, lies from *low* to *high*."""
    value = mapping.get(name)
    if value is not None:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        check(is_number and low <= value <= high, f"{name}: expected a number from {low} to {high}, got {value!r}")


def decoded_base64(text: object, place: str, *, url_safe: bool = False) -> bytes:
    """The bytes in *text*; with *url_safe* in the other alphabet of base64 too, as Google reads it."""
    written = is_text(text, place)
    if url_safe:
        written = written.replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(written, validate=True)
    except ValueError as error:
        raise invalid(f"{place}: Invalid base64 data: {error}") from error


def decoded(body: bytes) -> JSON:
    """The JSON object that is *body*."""
    try:
        return is_object(json.loads(body), "body")
    except ValueError as error:
        raise invalid(f"the body is not JSON: {error}") from error


def encoded(value: object) -> bytes:
    """*value* as compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def object_text(text: object, place: str) -> JSON:
    """The JSON object that is written in *text*."""
    try:
        return is_object(json.loads(is_text(text, place)), place)
    except ValueError as error:
        raise invalid(f"{place}: not JSON: {text!r}") from error
