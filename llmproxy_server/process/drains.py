"""Which LLMs are out of service, as the parent knows it from its workers, for those that begin later."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterable, Mapping

import attrs
import msgspec

from llmproxy_server.process.messages import AskAll, Drain, Reply
from llmproxy_server.providers import PATH, DrainDone


@attrs.frozen
class _Change:
    number: int
    """Of the question that asked for it."""
    drained: bool


class Drains:
    """
    What was drained and restored last, by LLM.

    It is so from the first worker's answer on: then all workers are told once more, those too that were not asked since
    they do not serve yet, and who begins from then on begins with it. All are told in one order, so in the end all do
    the same, whoever was silent in between.
    """

    def __init__(self, names: Iterable[str], tell: Callable[[Drain], object]) -> None:
        """*names* are out of service from the start. *tell* tells all workers, those that start included."""
        self._last = {name: _Change(0, True) for name in names}
        self._tell = tell
        self._numbers = itertools.count(1)

    @property
    def names(self) -> list[str]:
        return sorted(name for name, last in self._last.items() if last.drained)

    def number(self) -> int:
        """The number of a question that all workers are about to be asked: of two changes the later one holds."""
        return next(self._numbers)

    def heard(self, number: int, asked: AskAll, reply: Reply) -> None:
        """A worker's *reply* to *asked*, the question *number*; of another question, of no interest."""
        if (asked.method, asked.path, reply.status) != ("POST", PATH, 200):
            return
        done = msgspec.json.decode(reply.body, type=DrainDone)
        last = self._last.get(done.llm)
        if last is None or last.number < number:
            self._last[done.llm] = _Change(number, done.drained)
            self._tell(Drain(done.llm, done.drained))

    def change(self, drains: Mapping[str, bool]) -> None:
        """What was drained, or restored, in the version whose place we take, while we started."""
        for name, drained in drains.items():
            self._last[name] = _Change(self.number(), drained)
            self._tell(Drain(name, drained))

    def keep(self, configured: Container[str]) -> None:
        """Forget what is not *configured*."""
        for name in [it for it in self._last if it not in configured]:
            del self._last[name]
