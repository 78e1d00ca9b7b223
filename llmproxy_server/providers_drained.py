"""Which LLMs an operator has taken out of service, whatever configuration is served."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llmproxy_core.frozenmap import FrozenMap
from llmproxy_server.health_llm import LLMState
from llmproxy_server.log_events import get_logger

_log = get_logger()


class Drained:
    """
    The names of the LLMs that are out of service. One for a process, which outlives its configurations.

    A name is kept for as long as each configuration has an LLM of that name, also where nobody counts its calls.
    """

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._llms: Mapping[str, LLMState] = FrozenMap()

    @property
    def names(self) -> list[str]:
        """In the order of the alphabet."""
        return sorted(self._names)

    def begin(self, names: Iterable[str]) -> None:
        """What a process before this one, or the parent, knows. Before the first configuration is followed."""
        self._names.update(names)

    def follow(self, llms: Mapping[str, LLMState]) -> None:
        """*llms* are those of the configuration that is served from now on; what is none of them is forgotten."""
        self._llms = llms
        self._names.intersection_update(llms)
        for name, llm in llms.items():
            if llm.places is not None:
                # Told, not left as it is: places that a call of an old configuration has kept may know otherwise.
                llm.places.drained = name in self._names

    def change(self, name: str, drained: bool) -> None:
        """
        Have the LLM *name* be given no more calls, or calls again; what it is at work on goes on.

        One that this process does not have may come with the reload that is under way.
        """
        if drained:
            self._names.add(name)
        else:
            self._names.discard(name)
        llm = self._llms.get(name)
        if llm is None or llm.places is None or llm.places.drained == drained:
            return
        llm.places.drained = drained
        what = "an LLM is taken out of service" if drained else "an LLM is in service again"
        _log.warning(what, llm=name, in_flight=llm.places.in_flight)
