"""
Sending spans to a collector, in threads of its own: no trouble with it touches a call.

One makes the spans of the calls that are over, so that these are let go of, the other one sends them: a collector that
hangs holds up only that one. The exporters are OpenTelemetry's; they are imported in the threads, once the ports are
open. What does not fit, or that the collector does not take, is dropped and counted.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Protocol

import attrs

from llmproxy_core.config import TelemetryConfig
from llmproxy_core.errors import raise_unless_bug
from llmproxy_core.outcome import Outcome
from llmproxy_core.secret import Secret
from llmproxy_server.log_events import get_logger
from llmproxy_server.log_redact import Redaction
from llmproxy_server.logs import secrets_of
from llmproxy_server.record import Ended
from llmproxy_server.telemetry.exporter import Exporter, export_headers, make_exporter, quieten
from llmproxy_server.telemetry.held import call_bytes

_log = get_logger()
MAKE_S = 0.2
"""How often spans are made of the calls that are over, where few are: until then a call's request is held."""
MOST_CALLS = 2048
MOST_HELD_BYTES = 64 << 20
"""Of calls whose spans are not made yet, and of spans that are not sent yet."""
_MANY_BYTES = 4 << 20
"""With so many more that are held, spans are made at once."""
COMPLAINT_S = 60.0
CLOSE_S = 2.0
"""How long the end of the process waits for the last spans to leave."""


class MakesSpans(Protocol):
    def of(self, ended: Ended, bill: Outcome, behind_ns: int) -> Iterator[bytes]:
        """See Spans."""


@attrs.frozen
class Batching:
    """The bounds of the batch span processor, as the standard variables name them (OTEL_BSP_*)."""

    most_spans: int = 2048
    batch: int = 512
    delay_s: float = 5.0

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Batching:
        most = _positive(environ, "OTEL_BSP_MAX_QUEUE_SIZE", 2048)
        batch = _positive(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)
        return cls(most, min(batch, most), _positive(environ, "OTEL_BSP_SCHEDULE_DELAY", 5000) / 1000)

    @property
    def calls(self) -> int:
        """So many calls make about half a batch: their spans are made at once."""
        return max(self.batch // 4, 1)


def _positive(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, "").strip()
    return int(text) if text.isdecimal() and int(text) > 0 else default


@attrs.frozen(eq=False)
class _Over:
    """A call that is over and whose spans are not made."""

    spans: MakesSpans
    ended: Ended
    bill: Outcome
    behind_ns: int
    size: int


class Drops:
    """Spans that nobody has got, and calls whose spans were not even made: of all exports of a process."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """In any thread."""
        with self._lock:
            self.count += count


class Export:
    """
    The way to one collector, for all gateways with that configuration.

    `add` is called in the event loop and never waits. `start` begins the threads, `close` ends them.
    """

    def __init__(
        self, config: TelemetryConfig, drops: Drops, version: str, environ: Mapping[str, str] = os.environ
    ) -> None:
        self._config = config
        self._drops = drops
        self._version = version
        self._environ = environ
        self._batching = Batching.read(environ)
        self._calls_at_once = self._batching.calls
        self._over: deque[_Over] = deque()
        self._spans: deque[bytes] = deque()
        """As encoding.EncodedSpans has them."""
        self._held_bytes = 0
        self._counting = threading.Lock()
        """Of `_held_bytes`, for as long as a number is added to it."""
        self._calls_due = threading.Event()
        self._batch_due = threading.Event()
        self._closing = False
        self._maker: threading.Thread | None = None
        self._sender: threading.Thread | None = None
        self._complained_s = float("-inf")
        self.ready = threading.Event()
        """The exporter is there, or cannot be made."""

    def start(self) -> None:
        """Import what is needed and begin to send. May be called again."""
        if self._sender is None:
            self._maker = threading.Thread(target=self._make_all, name="llmproxy-traces", daemon=True)
            self._sender = threading.Thread(target=self._send_all, name="llmproxy-export", daemon=True)
            self._sender.start()
            self._maker.start()

    def add(self, spans: MakesSpans, ended: Ended, bill: Outcome) -> None:
        """A sampled call is over; in the event loop."""
        size = call_bytes(ended)
        if len(self._over) >= MOST_CALLS or not self._hold(size):
            self._lost(1, "calls end faster than spans are made")
            return
        self._over.append(_Over(spans, ended, bill, time.time_ns() - time.monotonic_ns(), size))
        held = self._held_bytes
        if len(self._over) == self._calls_at_once or held // _MANY_BYTES != (held - size) // _MANY_BYTES:
            self._calls_due.set()

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Send what there is, and end; waits at most *timeout_s* seconds. Not in the event loop."""
        self._closing = True
        self._calls_due.set()
        self._batch_due.set()
        if self._sender is not None:
            self._sender.join(timeout_s)

    def _hold(self, size: int) -> bool:
        """Count *size* bytes as held, unless they are too many."""
        with self._counting:
            if self._held_bytes + size > MOST_HELD_BYTES:
                return False
            self._held_bytes += size
            return True

    def _let_go(self, size: int) -> None:
        with self._counting:
            self._held_bytes -= size

    # -- the thread that makes spans -----------------------------------------------------------------------------

    def _make_all(self) -> None:
        self.ready.wait()  # two threads that import the same are in each other's way
        while not self._closing:
            self._calls_due.wait(MAKE_S)
            self._calls_due.clear()
            self._make()
        self._make()

    def _make(self) -> None:
        """Spans of the calls that are over."""
        while self._over:
            over = self._over.popleft()
            self._let_go(over.size)
            try:
                for span in over.spans.of(over.ended, over.bill, over.behind_ns):
                    self._keep(span)
            except BaseException as bug:  # noqa: BLE001 - a span that cannot be made must not end all others
                raise_unless_bug(bug)
                self._lost(1, f"a span could not be made: {type(bug).__name__}", bug)

    def _keep(self, span: bytes) -> None:
        if len(self._spans) >= self._batching.most_spans or not self._hold(len(span)):
            self._lost(1, "more of them wait for the collector than are kept")
            return
        self._spans.append(span)
        if len(self._spans) == self._batching.batch:
            self._batch_due.set()

    # -- the thread that sends them ------------------------------------------------------------------------------

    def _send_all(self) -> None:
        quieten()
        try:
            exporter = make_exporter(self._config, self._version, self._environ)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, calls go on without traces
            exporter = None
            _log.error("traces cannot be exported", reason=self._told(error))
        self.ready.set()
        while not self._closing:
            self._send_due(exporter)
        assert self._maker is not None
        self._maker.join()  # it makes the last ones now
        while self._spans and self._send(exporter):
            pass
        if self._spans:  # nor will it take these
            self._lost(len(self._spans), "the collector does not take them")
            self._let_go(sum(map(len, self._spans)))
            self._spans.clear()
        if exporter is not None:
            exporter.close()

    def _send_due(self, exporter: Exporter | None) -> None:
        """Wait for a batch, or until the delay is over; then send what is due."""
        in_time = self._batch_due.wait(self._batching.delay_s)
        self._batch_due.clear()
        most = self._batching.batch
        while len(self._spans) >= most and not self._closing:
            self._send(exporter)
        if not in_time and not self._closing:
            self._send(exporter)

    def _send(self, exporter: Exporter | None) -> bool:
        """Whether the collector took them; they are not sent again: the exporter has tried as often as it should."""
        count = min(self._batching.batch, len(self._spans))
        spans = [self._spans.popleft() for _ in range(count)]
        if not spans:
            return True
        try:
            sent = exporter is not None and exporter.send(spans)
            reason = "the collector does not take them"
        except Exception as error:  # noqa: BLE001 - as the collector's answer, so what a library makes of it
            sent, reason = False, self._told(error)
        self._let_go(sum(map(len, spans)))
        if not sent:
            self._lost(count, reason)
        return sent

    # -- what goes wrong -----------------------------------------------------------------------------------------

    def _lost(self, count: int, reason: str, bug: BaseException | None = None) -> None:
        """Count them, and say so once a minute. In any thread."""
        self._drops.add(count)
        now = time.monotonic()
        with self._counting:
            silent = now - self._complained_s < COMPLAINT_S
            if not silent:
                self._complained_s = now
        if not silent:
            _log.warning("spans are dropped", reason=reason[:512], dropped=self._drops.count, exc_info=bug)

    def _told(self, error: Exception) -> str:
        """*error* without the secrets of the configuration, and without what the environment says in headers."""
        headers = export_headers(self._config, self._environ).values()
        redact = Redaction([*secrets_of(self._config), *map(Secret, headers)])
        return f"{type(error).__name__}: {redact(str(error))}"
