"""What was injected: in the log line of the call, and counted."""

from __future__ import annotations

import logging
from functools import partial
from types import MappingProxyType

from llmproxy_chaos.faults import Faults
from llmproxy_core import Exchange, Services

FIELD = "chaos"
"""The field of the log line: the names of the faults, in the order in which they came."""

_log = logging.getLogger("llmproxy")


class Tally:
    """Notes the faults of one table."""

    def __init__(self, faults: Faults, services: Services) -> None:
        counter = partial(services.meter.counter, "llmproxy_chaos_faults_total", "Faults that chaos injected.")
        self._counters = MappingProxyType({name: counter(fault=name) for name in faults.configured})
        # Nobody shall find out by his callers that a rehearsal was left in the file.
        _log.warning(
            "chaos is configured: [%s] makes calls fail on purpose (%s)", services.table, ", ".join(self._counters)
        )

    def note(self, exchange: Exchange, fault: str) -> None:
        """*fault* befalls *exchange*; of a processor's own call the call that it is made for tells it."""
        self._counters[fault].add()
        while exchange.parent is not None:
            exchange = exchange.parent
        before = exchange.log_fields.get(FIELD)
        exchange.log_fields[FIELD] = [*(before if isinstance(before, list) else []), fault]
