"""Which models an LLM serves, and under which name each is sent."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import attrs

_WILD = frozenset("*?[")
_REMEMBERED = 1024  # names are the callers' choice, so the memory of them is bounded


@attrs.define
class ModelMap:
    """
    The `models` and `model` keys of an LLM.

    An exact name counts before globs, globs in the order written. Without entries every model is served.
    """

    entries: Sequence[tuple[str, str | None]] = ()
    """Pairs (asked: a name or glob, sent: None for the name asked)."""
    override: str | None = None
    """Sent whatever is asked."""
    _memory: dict[str, tuple[str, bool] | None] = attrs.field(init=False, factory=dict, repr=False, eq=False)

    @property
    def names(self) -> list[str]:
        """The names written out, for a model list."""
        return [asked for asked, _ in self.entries if not _WILD & set(asked)]

    @property
    def listed(self) -> bool:
        """Whether the configuration says which models there are."""
        return bool(self.entries)

    def sent(self, asked: str) -> str | None:
        """The name to send for *asked*; None when this LLM does not serve it."""
        found = self._find(asked)
        return None if found is None else found[0]

    def exactly(self, asked: str) -> bool:
        """Whether *asked* is served by a name written out, not by a glob or by having no list."""
        found = self._find(asked)
        return found is not None and found[1]

    def _find(self, asked: str) -> tuple[str, bool] | None:
        if asked not in self._memory:
            if len(self._memory) >= _REMEMBERED:
                self._memory.clear()
            self._memory[asked] = self._search(asked)
        return self._memory[asked]

    def _search(self, asked: str) -> tuple[str, bool] | None:
        if not self.entries:
            return self.override or asked, False
        for name, sent in self.entries:
            if name == asked:
                return self.override or sent or asked, True
        for name, sent in self.entries:
            if _WILD & set(name) and fnmatchcase(asked, name):
                return self.override or sent or asked, False
        return None
