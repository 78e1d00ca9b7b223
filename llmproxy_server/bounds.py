"""
Everything that a process keeps, and how much of it there may be: docs/bounds.md is this table in words.

What is here is what grows with what callers, upstreams or reloads do. All else is made from the configuration, or ends
with its call or connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf
from typing import TYPE_CHECKING, Protocol, TypeVar

import attrs

from llmproxy_core import http_answer, http_plan, http_prices, memory_ledger, model_map, routing
from llmproxy_core.gateway import Gateway
from llmproxy_core.groups import by_model
from llmproxy_core.groups.by_model import ByModel
from llmproxy_core.groups.layers import layers
from llmproxy_core.http_llm import HttpLLM
from llmproxy_core.memory import MemoryStore
from llmproxy_core.memory_windows import CurrentPeriods
from llmproxy_core.meter import Meter
from llmproxy_core.model_map import ModelMap
from llmproxy_server import door, door_host, log_writer, logs, transport_targets, wire_head
from llmproxy_server.log_writer import LineWriter
from llmproxy_server.metrics import attempt_series, call_metrics, model_names
from llmproxy_server.metrics.call_metrics import CallMetrics
from llmproxy_server.telemetry.export import MOST_CALLS, Export
from llmproxy_server.transport_pooled import PooledTransport
from llmproxy_server.wire import request_head, upstream_head, upstream_shape
from llmproxy_server.wire.upstream import WireTransport

if TYPE_CHECKING:
    from llmproxy_core.config import Config
    from llmproxy_core.tasks import Tasks
    from llmproxy_server.admission import Admission
    from llmproxy_server.front import Front
    from llmproxy_server.generation import Generation
    from llmproxy_server.maker import Maker
    from llmproxy_server.metrics.metering import Metering

SIZE = "llmproxy_bound_size"
CAP = "llmproxy_bound_cap"
_SIZE_DOC = "How much is kept, by what; docs/bounds.md says what each of them is."
_CAP_DOC = "How much may be kept, by what; +Inf: something else bounds it, docs/bounds.md says what."
T = TypeVar("T")


class Process(Protocol):
    """What is looked at of a Server."""

    tasks: Tasks
    admission: Admission
    metering: Metering
    generations: list[Generation]
    _front: Front
    _maker: Maker

    @property
    def config(self) -> Config: ...


@attrs.frozen
class Bound:
    """
    Something that is kept: *name* is its label `what`, *where* the attribute that keeps it.

    *size* and *cap* give how much there is and may be; inf: nothing of its own bounds it.
    """

    name: str
    where: str
    size: Callable[[Process], float]
    cap: Callable[[Process], float]


def export(process: Process, meter: Meter) -> None:
    """Export all as gauges, from the start of *process* on."""
    for bound in BOUNDS:
        meter.gauge(SIZE, _SIZE_DOC, _asked(bound.size, process), what=bound.name)
        meter.gauge(CAP, _CAP_DOC, _asked(bound.cap, process), what=bound.name)


def _asked(ask: Callable[[Process], float], process: Process) -> Callable[[], float]:
    return lambda: ask(process)


# -- whose they are --------------------------------------------------------------------------------------------------


def _gateways(process: Process) -> Iterator[Gateway]:
    """That which is served from, and those before it whose calls are not over."""
    return (generation.gateway for generation in process.generations)


def _llms(process: Process, kind: type[T]) -> Iterator[T]:
    for gateway in _gateways(process):
        for llm in gateway.llms.values():
            yield from (layer for layer in layers(llm) if isinstance(layer, kind))


def _models(process: Process) -> Iterator[ModelMap]:
    return (llm.models for gateway in _gateways(process) for llm in gateway.llms.values())


def _shared(process: Process, kind: type[T]) -> Iterator[T]:
    """The resources of one kind that gateways share."""
    return (it.value for it in process._maker.resources._held.values() if isinstance(it.value, kind))


def _transports(process: Process) -> Iterator[PooledTransport]:
    """Whatever they are built on: what the two of them keep is told by the same names."""
    # An abstract class is what is asked for here, which mypy takes for one to be made.
    return _shared(process, PooledTransport)  # type: ignore[type-abstract]


def _upstream_heads(process: Process) -> Iterator[upstream_head.HeadReader]:
    """One for each wire that has been called on; aiohttp remembers no line."""
    return (parts.heads for wire in _shared(process, WireTransport) if (parts := wire._parts) is not None)


def _upstream_shapes(process: Process) -> Iterator[upstream_shape.Shapes]:
    """One for each host that is called on over a wire."""
    known = (parts.connections for wire in _shared(process, WireTransport) if (parts := wire._parts) is not None)
    return (shapes for connections in known for shapes in connections.shapes())


def _memory(process: Process) -> Iterator[MemoryStore]:
    return _shared(process, MemoryStore)


def _writers(process: Process) -> Iterator[LineWriter]:
    return (handler._writer for handler in logs.handlers())


def _calls_counted(process: Process) -> Iterator[CallMetrics]:
    return (calls for generation in process.generations if (calls := generation.scope._calls) is not None)


def _held(periods: CurrentPeriods[T]) -> int:
    return sum(len(period.held) for period in periods._current.values())


def _or_none(cap: int) -> float:
    """0 of the configuration: no bound."""
    return cap or inf


def _each(cap: int, count: Callable[[Process], Iterator[object]]) -> Callable[[Process], float]:
    """*cap* for each of those that *count* gives."""
    return lambda process: cap * sum(1 for _ in count(process))


def _nothing(process: Process) -> float:
    return inf


def _connections_allowed(process: Process) -> float:
    return _or_none(process.config.server.max_connections)


def _calls_allowed(process: Process) -> float:
    return _or_none(process.config.server.max_in_flight)


# -- the table -------------------------------------------------------------------------------------------------------

BOUNDS = (
    # Clients.
    Bound(
        "connections",
        "llmproxy_server.edge.Edge.connections",
        lambda it: it._front.connections,
        _connections_allowed,
    ),
    Bound(
        "handshakes",
        "llmproxy_server.listener.Listener._handshakes",
        lambda it: sum(len(listener._handshakes) for listener in it._front.listeners),
        _connections_allowed,
    ),
    Bound(
        "calls",
        "llmproxy_server.edge.Edge.calls",
        lambda it: sum(len(edge.calls) for edge in it._front.edges),
        _connections_allowed,
    ),
    Bound(
        "in_flight", "llmproxy_server.admission.Admission.in_flight", lambda it: it.admission.in_flight, _calls_allowed
    ),
    Bound(
        "buffered_bytes",
        "llmproxy_server.admission.Admission.buffered_bytes",
        lambda it: it.admission.buffered_bytes,
        lambda it: it.config.server.max_buffered_bytes,
    ),
    Bound(
        "unsent_bytes",
        "llmproxy_server.unsent.Unsent._waiting",
        lambda it: it.admission.unsent.bytes,
        lambda it: it.config.server.max_unsent_bytes,
    ),
    # Calls, and what outlives them.
    Bound(
        "background",
        "llmproxy_core.gateway.Gateway.background",
        lambda it: sum(len(gateway.background) for gateway in _gateways(it)),
        _calls_allowed,
    ),
    Bound(
        "tasks",
        "llmproxy_core.tasks.Tasks._running",
        lambda it: len(it.tasks) + sum(len(generation.tasks) for generation in it.generations),
        _nothing,
    ),
    # Reloads.
    Bound("generations", "llmproxy_server.server.Server.generations", lambda it: len(it.generations), _nothing),
    Bound("resources", "llmproxy_core.resources.Resources._held", lambda it: len(it._maker.resources), _nothing),
    # What is remembered so as not to be found out again.
    Bound(
        "routes",
        "llmproxy_core.routing.RouteIndex._memory",
        lambda it: sum(len(gateway._index._memory) for gateway in _gateways(it)),
        _each(routing._REMEMBERED, _gateways),
    ),
    Bound(
        "models",
        "llmproxy_core.model_map.ModelMap._memory",
        lambda it: sum(len(models._memory) for models in _models(it)),
        _each(model_map._REMEMBERED, _models),
    ),
    Bound(
        "models_picked",
        "llmproxy_core.groups.by_model.ByModel._picked",
        lambda it: sum(len(llm._picked) for llm in _llms(it, ByModel)),
        _each(by_model._REMEMBERED, lambda it: _llms(it, ByModel)),
    ),
    Bound(
        "prices",
        "llmproxy_core.http_prices.ModelPrices._known",
        lambda it: sum(len(llm._prices._known) for llm in _llms(it, HttpLLM)),
        _each(http_prices._REMEMBERED, lambda it: _llms(it, HttpLLM)),
    ),
    Bound(
        "calls_planned",
        "llmproxy_core.http_plan.Plans.kept",
        lambda it: sum(len(llm._plans.kept) for llm in _llms(it, HttpLLM)),
        _each(http_plan._REMEMBERED, lambda it: _llms(it, HttpLLM)),
    ),
    Bound(
        "response_headers",
        "llmproxy_core.http_answer.Crossing._crosses",
        lambda it: sum(llm._crossing._crosses.cache_info().currsize for llm in _llms(it, HttpLLM)),
        _each(http_answer._REMEMBERED_HEADS, lambda it: _llms(it, HttpLLM)),
    ),
    Bound(
        "hosts",
        "llmproxy_server.door_host.HostPolicy._known",
        lambda it: sum(len(edge.door._hosts._known) for edge in it._front.edges),
        _each(door_host._REMEMBERED, lambda it: iter(it._front.edges)),
    ),
    Bound(
        "heads",
        "llmproxy_server.door.Door._usual",
        lambda it: sum(len(edge.door._usual) for edge in it._front.edges),
        _each(door._REMEMBERED, lambda it: iter(it._front.edges)),
    ),
    Bound(
        "request_lines",
        "llmproxy_server.wire.request_head.HeadReader._known_begins",
        lambda it: sum(len(edge.heads._known_begins) for edge in it._front.edges),
        _each(request_head._REMEMBERED, lambda it: iter(it._front.edges)),
    ),
    Bound(
        "header_lines",
        "llmproxy_server.wire.request_head.HeadReader._known",
        lambda it: sum(edge.heads.remembered for edge in it._front.edges),
        _each(request_head._REMEMBERED, lambda it: iter(it._front.edges)),
    ),
    Bound(
        "header_names",
        "llmproxy_server.wire_head.HeadWriter._names",
        lambda it: len(it._maker._heads._names),
        lambda it: wire_head._REMEMBERED,
    ),
    Bound(
        "upstream_urls",
        "llmproxy_server.transport_targets.Targets._known",
        lambda it: sum(transport.urls_known for transport in _transports(it)),
        _each(transport_targets.REMEMBERED, _transports),
    ),
    Bound(
        "upstream_header_lines",
        "llmproxy_server.wire.upstream_head.HeadReader._fields",
        lambda it: sum(len(heads._fields) for heads in _upstream_heads(it)),
        _each(upstream_head.REMEMBERED, _upstream_heads),
    ),
    Bound(
        "upstream_head_shapes",
        "llmproxy_server.wire.upstream_shape.Shapes._shapes",
        lambda it: sum(len(shapes._shapes) for shapes in _upstream_shapes(it)),
        _each(upstream_shape.MOST, _upstream_shapes),
    ),
    # Upstreams.
    Bound(
        "upstream_connections",
        "llmproxy_server.wire.upstream_pool.Connections._all",
        lambda it: sum(transport.connections_open for transport in _transports(it)),
        lambda it: sum(_or_none(transport.most_connections) for transport in _transports(it)),
    ),
    Bound(
        "upstream_calls",
        "llmproxy_server.transport_clock.UnderWay._calls",
        lambda it: sum(transport.calls_under_way for transport in _transports(it)),
        _nothing,
    ),
    # Stores in memory.
    Bound(
        "store_bytes",
        "llmproxy_core.memory_key_value.MemoryKeyValue._cache",
        lambda it: sum(space._cache.currsize for store in _memory(it) for space in store._key_values.values()),
        lambda it: sum(space._cache.maxsize for store in _memory(it) for space in store._key_values.values()),
    ),
    Bound(
        "store_counters",
        "llmproxy_core.memory_counter.MemoryCounter._periods",
        lambda it: sum(_held(space._periods) for store in _memory(it) for space in store._counters.values()),
        _nothing,
    ),
    Bound(
        "ledger_accounts",
        "llmproxy_core.memory_ledger.MemoryLedger._periods",
        lambda it: sum(_held(space._periods) for store in _memory(it) for space in store._ledgers.values()),
        _nothing,
    ),
    Bound(
        "ledger_open",
        "llmproxy_core.memory_ledger.MemoryLedger._open",
        lambda it: sum(len(space._open) for store in _memory(it) for space in store._ledgers.values()),
        _nothing,
    ),
    Bound(
        "ledger_closed",
        "llmproxy_core.memory_ledger.MemoryLedger._closed",
        lambda it: sum(len(space._closed) for store in _memory(it) for space in store._ledgers.values()),
        lambda it: memory_ledger.MAX_CLOSED * sum(len(store._ledgers) for store in _memory(it)),
    ),
    Bound(
        "ledger_records",
        "llmproxy_core.memory_ledger.MemoryLedger._records",
        lambda it: sum(len(space._records) for store in _memory(it) for space in store._ledgers.values()),
        lambda it: memory_ledger.MAX_RECORDS * sum(len(store._ledgers) for store in _memory(it)),
    ),
    # What is written down.
    Bound(
        "log_lines",
        "llmproxy_server.log_writer.LineWriter._queue",
        lambda it: sum(writer.waiting for writer in _writers(it)),
        _each(log_writer.MOST_LINES, _writers),
    ),
    Bound(
        "log_bytes",
        "llmproxy_server.log_writer.LineWriter._bytes",
        lambda it: sum(writer._bytes for writer in _writers(it)),
        _each(log_writer.MOST_BYTES, _writers),
    ),
    Bound(
        "trace_calls",
        "llmproxy_server.telemetry.export.Export._over",
        lambda it: sum(len(way._over) for way in _shared(it, Export)),
        _each(MOST_CALLS, lambda it: _shared(it, Export)),
    ),
    Bound(
        "trace_spans",
        "llmproxy_server.telemetry.export.Export._spans",
        lambda it: sum(len(way._spans) for way in _shared(it, Export)),
        lambda it: sum(way._batching.most_spans for way in _shared(it, Export)),
    ),
    Bound(
        "metric_models",
        "llmproxy_server.metrics.model_names.ModelNames._counted",
        lambda it: sum(len(calls._names._counted) for calls in _calls_counted(it)),
        _each(model_names._REMEMBERED, _calls_counted),
    ),
    Bound(
        "metric_calls",
        "llmproxy_server.metrics.call_metrics.CallMetrics._guesses",
        lambda it: sum(len(calls._guesses) for calls in _calls_counted(it)),
        _each(call_metrics._REMEMBERED, _calls_counted),
    ),
    Bound(
        "metric_attempts",
        "llmproxy_server.metrics.attempt_series.AttemptTable._found",
        lambda it: sum(len(calls._attempts._found) for calls in _calls_counted(it)),
        _each(attempt_series._REMEMBERED, _calls_counted),
    ),
    Bound(
        "metric_cells",
        "llmproxy_server.metrics.values.Values.cells",
        lambda it: it.metering.values.used * it.metering.values.most,
        lambda it: it.metering.values.most,
    ),
)
