"""Cutting the configuration's secrets out of what is logged, in every form in which a line may hold them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote

from llmproxy_core.secret import Secret

_SHORTEST = 8  # characters; to cut a shorter one out of every word would make the log unreadable, not safer
_MARK = "***"
_ESCAPE = re.compile("%[0-9A-F]{2}")
_BEARER = re.compile(r"(?i)\b(bearer) +[\w.~+/=-]{8,}", re.ASCII)


class Redaction:
    """Knows the secrets. Longer ones go first: a secret that holds another goes whole."""

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        values = {secret.reveal() for secret in secrets}
        forms = {form for value in values if len(value) >= _SHORTEST for form in _forms(value)}
        self._forms = tuple(sorted(forms, key=len, reverse=True))
        self._in_lines = tuple(forms | {json.dumps(form)[1:-1] for form in forms})
        self._longest = max(map(len, forms), default=0)

    def found_in(self, line: str) -> bool:
        """Whether something is to be cut out of what was written as *line*, of JSON. Quick: asked of every line."""
        for form in self._in_lines:
            if form in line:
                return True
        return "earer " in line or "EARER " in line

    def __call__(self, text: str) -> str:
        """*text* without secrets, and without the token of any `Bearer …`."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, _MARK)
        return _BEARER.sub(rf"\1 {_MARK}", text) if "earer " in text or "EARER " in text else text

    def head(self, text: str, most: int) -> str:
        """The beginning of *text*, about *most* characters of it, without secrets."""
        if len(text) <= most:
            return self(text)
        # A secret may stand across the end of what is looked at. What is left of it is within these last ones.
        looked_at = self(text[: most + self._longest])
        return looked_at[: len(looked_at) - self._longest]

    def tail(self, text: str, most: int) -> str:
        """The last *most* characters of *text* without secrets."""
        return self(text)[-most:]


def _forms(value: str) -> set[str]:
    """*value* as it stands in text, in JSON (also in text that JSON holds), in a Python literal and in a URL."""
    quoted = {quote(value, safe=""), quote(value)}
    forms = {value} | quoted | {_ESCAPE.sub(lambda found: found[0].lower(), form) for form in quoted}
    for _ in range(2):
        forms |= {json.dumps(form, ensure_ascii=False)[1:-1] for form in forms}
        forms |= {json.dumps(form)[1:-1] for form in forms} | {form.replace("/", "\\/") for form in forms}
        forms |= {repr(form)[1:-1] for form in forms}
    return forms
