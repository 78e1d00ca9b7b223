"""What a request's `Cache-Control` asks of the cache (RFC 9111 section 5.2.1)."""

from __future__ import annotations

import attrs

from llmproxy_core import Headers


@attrs.frozen
class Directives:
    """*max_age_s* is the age in seconds above which an answer is too old for this request; None for any."""

    no_store: bool = False
    no_cache: bool = False
    max_age_s: int | None = None

    @classmethod
    def of(cls, headers: Headers) -> Directives:
        """Of *headers*. Unknown directives are ignored; a `max-age` that is no number of seconds counts as 0."""
        said = ",".join(headers.get_all("cache-control"))
        if not said:
            return _NONE
        found = [each.partition("=") for each in said.lower().split(",")]
        values = {name.strip(): value.strip().strip('"') for name, _, value in found}
        max_age_s = None
        if "max-age" in values:
            text = values["max-age"]
            max_age_s = int(text[:9]) if text.isascii() and text.isdigit() else 0
        return cls("no-store" in values, "no-cache" in values, max_age_s)

    def refuses(self, age_s: float) -> bool:
        """Whether an answer that was made *age_s* seconds ago is too old."""
        return self.max_age_s is not None and (age_s > self.max_age_s or self.max_age_s == 0)


_NONE = Directives()
