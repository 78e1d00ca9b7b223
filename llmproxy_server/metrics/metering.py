"""The metrics of a process: where they are kept, who adds to them, and what all processes of the proxy have in sum."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Self

from llmproxy_core.attempt import Attempt
from llmproxy_core.gateway import Gateway
from llmproxy_server.metrics.call_metrics import CallMetrics
from llmproxy_server.metrics.llm_gauges import watch_llms
from llmproxy_server.metrics.meter import Sampler, StoredMeter
from llmproxy_server.metrics.process import watch_process
from llmproxy_server.metrics.slot import Slots, open_slot
from llmproxy_server.metrics.snapshot import Snapshot, added_up
from llmproxy_server.metrics.upkeep import Upkeep
from llmproxy_server.metrics.values import Slot, Values

PERIOD_S = 1.0
"""How often a process looks at its gauges for the others to see."""
PARENT, PARENT_CELLS = "parent", 1024


class Metering:
    """One for each process; it outlives gateways."""

    def __init__(self, values: Values, directory: Path | None = None) -> None:
        """*directory*: where the slots of all workers are; None: this process is the only one."""
        self.values = values
        self.sampler = Sampler(values)
        self.meter = StoredMeter(values, self.sampler.gauges)
        """For what the process itself counts, whatever is configured."""
        self._slots = None if directory is None else Slots(directory)
        self._timer: asyncio.TimerHandle | None = None
        self.upkeep: Upkeep | None = None
        """Where reloads and workers are counted; None in a worker, whose parent does it."""
        watch_process(self.sampler)

    @classmethod
    def alone(cls) -> Self:
        """That of the only process."""
        metering = cls(Values.anonymous())
        metering.upkeep = Upkeep(metering.values)
        metering.upkeep.alive(1)
        return metering

    @classmethod
    def of_parent(cls, directory: Path) -> Self:
        """
        That of the parent of workers, who have it in *directory*, too. OSError when the files cannot be made.

        The directory is one run's own: another run counts anew.
        """
        metering = cls(open_slot(directory, PARENT, PARENT_CELLS), directory)
        metering.upkeep = Upkeep(metering.values)
        return metering

    @classmethod
    def of_worker(cls, directory: Path, slot: str) -> Self:
        """That of the worker *slot*: what was counted there before goes on. OSError when the files cannot be made."""
        return cls(open_slot(directory, slot), directory)

    def scope(self) -> Scope:
        """What a gateway that is about to be built counts with."""
        return Scope(self)

    # -- what all have counted -----------------------------------------------------------------------------------

    def sample(self) -> None:
        """Look at the gauges of this process. In the event loop."""
        self.sampler.sample()

    def snapshot(self) -> Snapshot:
        """What all processes have counted. In any thread."""
        if self._slots is None:
            return added_up([Slot(self.values.series, self.values.cells)])
        return added_up(self._slots.read())

    # -- for the others to see -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Look at the gauges each second, where others read them. In the event loop."""
        if self._slots is not None and self._timer is None:
            self._tick()

    def _tick(self) -> None:
        self.sample()
        self._timer = asyncio.get_running_loop().call_later(PERIOD_S, self._tick)

    def stop(self) -> None:
        """Look no more. May be called again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Scope:
    """
    The metrics of one gateway: `meter` is for its plugins, `calls` for its calls.

    Nothing of it is seen until `activate`, so that a gateway which is built and never serves changes nothing.
    """

    def __init__(self, metering: Metering) -> None:
        self._metering = metering
        self.meter = StoredMeter(metering.values)
        self._calls: CallMetrics | None = None

    def calls(self, gateway: Gateway) -> CallMetrics:
        """Counts the calls of *gateway*; its LLMs are looked at from when it serves."""
        self._calls = CallMetrics(self._metering.values, gateway)
        watch_llms(self.meter.gauges, self._metering.values, gateway)
        return self._calls

    def probed(self, llm: str, attempt: Attempt) -> None:
        """The LLM *llm* of the gateway was asked how it is, by *attempt*, which is over."""
        if self._calls is not None:
            self._calls.probed(llm, attempt)

    def activate(self) -> None:
        """The gateway serves from now on."""
        self._metering.sampler.follow(self.meter.gauges)
        if self._calls is not None:
            self._calls.activate()

    def replaced(self) -> None:
        """Another gateway serves from now on."""
        if self._calls is not None:
            self._calls.replaced()
