"""The tables of a configuration, as frozen values."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import attrs

from llmproxy_core.dialect import Operation
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.hookspecs import ProcessorType, StoreType
from llmproxy_core.llm_config import BaseUrl, LLMConfig, UpstreamHeaders
from llmproxy_core.money import Money
from llmproxy_core.option import (
    Misread,
    Misreadings,
    Stated,
    WrittenAs,
    between,
    byte_size,
    count,
    each,
    host_name,
    is_host,
    matches,
    option,
    plain_text,
    port,
    seconds,
    some_seconds,
)

Uncovered = Literal["error", "allow"]
OnUnsupported = Literal["error", "drop"]
OnError = Literal["fail", "pass"]


def _some_dollars(amount: Money) -> None:
    if not amount > Money():
        raise ValueError('expected a positive amount such as "0.05"')


@attrs.frozen(kw_only=True)
class DrainUpTo:
    """An answer whose client has left is read to its end as long as it costs less than an amount."""

    drain_up_to_usd: Money = option(
        "The amount, in US dollars: the call's cost so far, told or estimated, at which it is cancelled.",
        validator=_some_dollars,
        example="0.05",
    )


OnDisconnect = DrainUpTo | Literal["cancel", "drain"]


@attrs.frozen(kw_only=True)
class LogConfig:
    """`[server.log]`: what is logged, and how."""

    level: Literal["trace", "debug", "info", "warn", "error"] = option(
        "The least level that is logged.", default="info"
    )
    format: Literal["json", "text", "auto"] = option(
        "One JSON object a line, or text for people; auto: text on a terminal, else json.", default="auto"
    )
    log_content: bool = option(
        "Log what is asked and answered too. Content is personal: leave it off unless all who call have agreed.",
        default=False,
    )
    max_content_bytes: int = option(
        "The most of a query, and of an answer, that is logged with `log_content`; what is longer is cut.",
        default=8 << 10,
        validator=between(64, 1 << 20, "a number of bytes"),
    )


@attrs.frozen(kw_only=True)
class TelemetryConfig:
    """`[telemetry]`: traces over OTLP, and what the metrics are called. The `OTEL_*` variables win over these keys."""

    traces: bool = option("Export a trace of the calls over OTLP.", default=False)
    endpoint: BaseUrl | None = option(
        "Where to: the base URL of an OTLP receiver. Absent: port 4318 of this machine, 4317 for grpc.",
        default=None,
        example="http://127.0.0.1:4318",
    )
    traces_endpoint: BaseUrl | None = option(
        "The whole URL that traces are sent to, where it is another than the protocol's path below `endpoint`.",
        default=None,
        example="https://otlp.example.com/traces/v2",
    )
    protocol: Literal["http/protobuf", "grpc"] = option("How it is sent.", default="http/protobuf")
    headers: UpstreamHeaders = option(
        'Headers of each export. A secret value is written `{ env = "NAME" }`.',
        default=(),
        example={"x-team": "search"},
    )
    sample_ratio: float = option(
        "The part of the traces that is recorded: 1 all, 0.01 one in a hundred.",
        default=1.0,
        validator=between(0, 1, "a number"),
    )
    follow_parent: bool = option(
        "Record a call when its caller records the trace, and only then; false: decide by `sample_ratio` alone.",
        default=True,
    )
    capture_content: bool = option(
        "Put what is asked and answered into spans too. Content is personal: leave it off unless all who call have "
        "agreed.",
        default=False,
    )
    max_content_bytes: int = option(
        "The most of a query, and of an answer, that is put into a span; what is longer is cut.",
        default=8 << 10,
        validator=between(64, 1 << 20, "a number of bytes"),
    )
    service_name: str = option("The service that the spans name.", default="llmproxy", validator=plain_text)
    resource: Mapping[str, str] = option(
        "More attributes of the service, as `deployment.environment.name`.",
        default=FrozenMap(),
        example={"deployment.environment.name": "production"},
    )
    newest_metric_names: bool = option(
        "Name the GenAI metrics as the newest semantic conventions do, not as the last release.", default=False
    )


def read_own_endpoints(written: bool | str) -> bool | str:
    if isinstance(written, str):
        host, _, number = written.rpartition(":")
        bare = ":" in host and not host.startswith("[")  # of an IPv6 address: which part would be the port?
        if bare or not is_host(host) or not re.fullmatch(r"[0-9]{1,5}", number, re.ASCII) or int(number) > 65535:
            raise ValueError('expected true, false or an address such as "127.0.0.1:9090" or "[::1]:9090"')
    return written


def read_networks(written: tuple[str, ...]) -> tuple[str, ...]:
    found: list[Misread] = []
    for index, network in enumerate(written):
        try:
            ipaddress.ip_network(network)
        except ValueError:
            found.append(Misread('expected an address or network such as "10.0.0.0/8"', index))
    Misreadings.refuse(found)
    return written


_ORIGIN = matches(
    r"\*|https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?",
    'an origin such as "https://app.example.com" (lower case, no path), or "*"',
)

_NORMAL_PATH = re.compile(
    r"/|(/([A-Za-z0-9\-._~!$&'()*+,=:@]|%[0-9A-Fa-f]{2})+)+", re.ASCII
)  # RFC 3986 pchar, less ";"
_ENCODED = re.compile(r"(?i)%(2e|2f|5c|00)")


def check_prefix(prefix: str) -> None:
    """A path in the one form in which requests are let in: paths are compared as they come, never normalised."""
    if not prefix.startswith("/"):
        raise ValueError('expected a path that begins with "/"')
    if prefix != "/" and prefix.endswith("/"):
        raise ValueError('expected a path without "/" at its end; it covers what is below it anyway')
    if "//" in prefix or {".", ".."} & set(prefix.split("/")):
        raise ValueError('expected a path without "//", "." and ".."')
    if _ENCODED.search(prefix):
        raise ValueError("expected a path without %2e, %2f, %5c and %00")
    if not _NORMAL_PATH.fullmatch(prefix):
        raise ValueError("expected a path of URL characters, without ; ? # and backslash; others %-encoded")


_prefix = Stated(check_prefix, {"pattern": "^/"})


@attrs.frozen(kw_only=True)
class ServerConfig:
    """`[server]`: where the proxy listens, and its bounds."""

    host: str = option(
        "The address to bind. Any but a loopback one needs `allow_anonymous = true`.",
        default="127.0.0.1",
        validator=host_name,
    )
    port: int = option("The TCP port; 0 takes a free one.", default=3000, validator=port)
    cors_allowed_origins: tuple[str, ...] = option(
        'Origins whose pages may call the proxy from a browser; "*": every page, also one that means harm.',
        default=(),
        validator=each(_ORIGIN),
        example=["https://app.example.com"],
    )
    tls_certificate: str | None = option(
        "The certificate chain, a PEM file (relative to this file); with `tls_key` the proxy speaks HTTPS.",
        default=None,
        validator=plain_text,
        example="tls/certificate.pem",
    )
    tls_key: str | None = option(
        "The private key of the certificate, a PEM file without a passphrase (relative to this file).",
        default=None,
        validator=plain_text,
        example="tls/key.pem",
    )
    max_body_bytes: int = option(
        "The longest request body; a route may have its own.", default=32 << 20, validator=byte_size
    )
    max_buffered_bytes: int = option(
        "Request bodies held in memory, all calls together; what would pass it is answered 503.",
        default=512 << 20,
        validator=byte_size,
    )
    max_unsent_bytes: int = option(
        "Whole answers held in memory until their clients have taken them, all calls together; when there are more, "
        "the client that takes its own most slowly is cut.",
        default=512 << 20,
        validator=byte_size,
    )
    max_in_flight: int = option(
        "Calls served at once; more wait (`max_queued`), or are answered 503. 0: no bound.",
        default=1000,
        validator=count,
    )
    max_queued: int = option(
        "Calls that wait until one of `max_in_flight` is over, their callers in turn; more are answered 503, first the "
        "last ones of the caller that has most. 0: none waits.",
        default=100,
        validator=count,
    )
    queue_timeout_s: float = option(
        "Seconds that a call waits for its turn before it is answered 503.", default=1.0, validator=some_seconds
    )
    adaptive_limit: bool = option(
        "Serve fewer than `max_in_flight` at once (but at least 10) while the event loop is late all the time, as "
        "there is more to do than one core can.",
        default=False,
    )
    max_connections: int = option(
        "Client connections open at once; more wait to be accepted. 0: no bound.", default=0, validator=count
    )
    drain_timeout_s: float = option(
        "Seconds that calls in flight have to finish after SIGTERM.", default=30.0, validator=seconds
    )
    keepalive_s: float = option(
        "Seconds of an upstream's silence after which a client of a stream that has begun is sent a sign of life, in "
        "its protocol's own words; 0: none. Gemini's clients know none.",
        default=15.0,
        validator=seconds,
    )
    settle_timeout_s: float = option(
        "Seconds that the end of an answer waits for its effects (accounting, logs).", default=1.0, validator=seconds
    )
    trusted_proxies: Annotated[tuple[str, ...], WrittenAs(tuple[str, ...], read_networks)] = option(
        "Addresses and networks of reverse proxies before this one, whose forwarding headers are believed.",
        default=(),
        example=["10.0.0.0/8"],
    )
    allowed_hosts: tuple[str, ...] = option(
        "Names that `Host` may have besides the loopback ones, where the proxy listens on loopback.",
        default=(),
        validator=each(host_name),
        example=["llm.example.com"],
    )
    allow_anonymous: bool = option(
        "Serve callers without a key on an address that other machines reach.", default=False
    )
    own_endpoints: Annotated[bool | str, WrittenAs(bool | str, read_own_endpoints)] = option(
        'The proxy\'s own endpoints (/health, /metrics, …): true, false, or a "host:port" of their own (any but a '
        "loopback host needs `allow_anonymous = true`).",
        default=True,
        example="127.0.0.1:9090",
    )
    log: LogConfig = option("What is logged, and how.", default=LogConfig())
    header_timeout_s: float = option(
        "Seconds that a client has to send the head of a request.", default=10.0, validator=some_seconds
    )
    body_timeout_s: float = option(
        "Seconds for which a client may send nothing of its body, or be behind `body_min_bytes_per_s`.",
        default=30.0,
        validator=some_seconds,
    )
    body_min_bytes_per_s: int = option("The slowest upload that is waited for.", default=1024, validator=count)
    idle_timeout_s: float = option(
        "Seconds for which an idle client connection is kept.", default=75.0, validator=some_seconds
    )
    write_timeout_s: float = option(
        "Seconds for which a client may read nothing of its answer, or be behind `write_min_bytes_per_s`.",
        default=60.0,
        validator=some_seconds,
    )
    write_min_bytes_per_s: int = option(
        "The slowest client that is waited for while something of its answer is held here; 0: one that reads anything.",
        default=1024,
        validator=count,
    )
    max_header_bytes: int = option(
        "The longest head of a request.", default=32 << 10, validator=between(1024, 1 << 30, "a number of bytes")
    )
    max_header_count: int = option("Header lines in a request.", default=100, validator=between(8, 100_000, "a count"))
    watch: bool = option("Reload this file, and `.env`, whenever they change.", default=False)
    workers: int = option(
        "Processes that serve, each with an event loop and a core of its own.",
        default=1,
        validator=between(1, 256, "a count"),
    )
    debug: bool = option("Log at level debug where `log.level` is not set.", default=False)
    recent_requests: int = option(
        "Calls that `GET /api/requests` still explains: so many that went well at the first attempt, and so many "
        "others. 0: none, and there is no such endpoint.",
        default=200,
        validator=between(0, 10_000, "a count"),
    )


@attrs.frozen(kw_only=True)
class ProcessorTable:
    """The keys of every `[processor.NAME]`; the others are its type's."""

    type: str = option("What builds this processor; `llmproxy plugins` lists the types.", example="openai_chat")
    config_value: object = option("The one key that the type marks, written short.", default=None)
    additional_config: Mapping[str, object] = option(
        "More keys of the type, merged into this table; a key given twice is a problem.", default=FrozenMap()
    )
    uncovered: Uncovered = option(
        "allow: the processor may stand in a route that serves operations it does not act on.", default="error"
    )
    timeout_s: float | None = option(
        "Seconds that the processor itself may take for a call, what it waits for inside call_next not counted; "
        "absent: no limit.",
        default=None,
        validator=some_seconds,
        example=5.0,
    )
    on_error: OnError = option(
        "What happens when it raises what is no answer to the caller, or takes longer than timeout_s: fail: the call "
        "is answered 500 with its name; pass: it is passed over. A filter or replacement of its that fails in the "
        "middle of an answer ends that answer all the same.",
        default="fail",
    )


@attrs.frozen(kw_only=True)
class ProcessorConfig:
    """A `[processor.NAME]`: its type, and that type's own configuration object."""

    name: str
    type: ProcessorType[Any]
    config: object
    uncovered: Uncovered = "error"
    timeout_s: float | None = None
    on_error: OnError = "fail"


@attrs.frozen(kw_only=True)
class StoreTable:
    """
    The key of every `[store.NAME]`; the others are its type's.

    Processors name the store that they keep things in. Without a table `[store.memory]` there is a store of that name
    all the same, of the type `memory`.
    """

    type: str = option("What builds this store; `llmproxy plugins` lists the types.", example="memory")


@attrs.frozen(kw_only=True)
class StoreConfig:
    """A `[store.NAME]`: its type, and that type's own configuration object."""

    name: str
    type: StoreType[Any]
    config: object


@attrs.frozen(kw_only=True)
class RouteConfig:
    """A `[[route]]`: which requests go through which processors to which LLM."""

    path_prefix: str = option(
        "Requests whose path begins with it, on whole segments, take this route; the longest prefix wins.",
        validator=_prefix,
        example="/v1",
    )
    target_llm: str = option("The LLM that answers, by name.", example="openai", refers_to="llm")
    processors: tuple[str, ...] = option(
        "Processors by name, in the order in which they see the request.",
        default=(),
        example=["enhance_query"],
        refers_to="processor",
    )
    allow_streaming: bool = option("false: a request for a stream is refused with 400.", default=True)
    allow_non_streaming: bool = option("false: a request for a plain answer is refused with 400.", default=True)
    operations: tuple[Operation, ...] | None = option(
        "What may be asked here. Absent: all that the dialect knows. `opaque` (anything, forwarded untouched) must be "
        "listed in so many words.",
        default=None,
        example=["chat", "models"],
    )
    dialect: str | None = option(
        "The wire protocol of the clients, where the path does not tell.", default=None, example="openai"
    )
    max_body_bytes: int | None = option(
        "The longest request body here; absent: the server's. Opaque bodies are bounded by this one alone.",
        default=None,
        validator=byte_size,
    )
    strip_prefix: str | None = option(
        "Opaque requests: what is cut from the path before the rest is put behind `base_url`; absent: all up to the "
        "version segment.",
        default=None,
        validator=_prefix,
        example="/v1",
    )
    encoded_slash: bool = option("Allow %2F in the last segment of the path, for model names.", default=False)
    on_unsupported: OnUnsupported = option(
        "What happens to a field that the LLM's protocol cannot say: error (400 that names it), or drop.",
        default="error",
    )
    deadline_s: float | None = option(
        "Seconds that a call may take in all, with every retry; the headers `x-llmproxy-timeout-ms` and "
        "`x-stainless-timeout` of a request can make it shorter. Absent: as long as its LLM may.",
        default=None,
        validator=some_seconds,
        example=120.0,
    )
    expose_attempts: bool = option(
        "true: the header `x-llmproxy-attempts` of each answer tells which LLMs and keys were tried, and why.",
        default=False,
    )
    on_disconnect: OnDisconnect = option(
        "What becomes of an upstream's answer whose client has left: cancel: it is given up at once; drain: it is read "
        'to its end, for a cache and for the bill; `{ drain_up_to_usd = "0.05" }`: a stream is read on until the call '
        "has cost that much.",
        default="cancel",
        example={"drain_up_to_usd": "0.05"},
    )

    @property
    def name(self) -> str:
        """What the route is called in logs, metrics and messages: its prefix."""
        return self.path_prefix


@attrs.frozen(kw_only=True)
class Config:
    """A whole configuration, valid: every name in it stands for something."""

    server: ServerConfig = ServerConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    llms: Mapping[str, LLMConfig] = FrozenMap()
    processors: Mapping[str, ProcessorConfig] = FrozenMap()
    stores: Mapping[str, StoreConfig] = FrozenMap()
    routes: tuple[RouteConfig, ...] = ()
