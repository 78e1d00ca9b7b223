"""Request ids: the client's own where it is harmless, else one of ours."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

from llmproxy_core.headers import Headers

REQUEST_ID = "x-request-id"
_AT_ONCE = 64
_HARMLESS = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)


class RequestIds:
    """Names requests. The ids need to be distinct, not secret."""

    def __init__(self, bits: Callable[[int], int] | None = None) -> None:
        """*bits* gives that many random bits."""
        self._bits = Random().getrandbits if bits is None else bits  # noqa: S311 - not a secret
        self._made: list[str] = []

    def of(self, headers: Headers) -> str:
        """The id that the client gave, when it can be logged and returned as it is; else a new one."""
        given = headers.first.get(REQUEST_ID)
        if given is not None and _HARMLESS.fullmatch(given):
            return given
        made = self._made
        return made.pop() if made else self.new()

    def new(self) -> str:
        if not self._made:  # many at once are cheaper
            digits = f"{self._bits(128 * _AT_ONCE):0{32 * _AT_ONCE}x}"
            self._made = [digits[begin : begin + 32] for begin in range(0, len(digits), 32)]
        return self._made.pop()
