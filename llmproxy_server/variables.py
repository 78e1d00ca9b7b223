"""The environment variables that stand for keys, and how their text is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import attrs

from llmproxy_core.config_problem import shown
from llmproxy_core.option import options, variable_type
from llmproxy_server.log_events import get_logger

_log = get_logger()
LEVELS = ("trace", "debug", "info", "warn", "error")
_DURATION = re.compile(r"(?:\d{1,9}(?:\.\d{1,9})?(?:ms|h|m|s))+", re.ASCII)
_DURATION_PART = re.compile(r"([\d.]+)(ms|h|m|s)", re.ASCII)
_UNIT_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def read_port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) or int(text) > 65535:
        raise ValueError("expected a TCP port from 0 to 65535")
    return int(text)


def read_count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        raise ValueError("expected a count, 0 or more")
    return int(text)


def read_seconds(text: str) -> float:
    """Seconds, as a plain number or as Go writes durations: "90s", "1m30s", "500ms"."""
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text, re.ASCII):
        return float(text)
    if not _DURATION.fullmatch(text):
        raise ValueError('expected seconds, or a duration such as "90s" or "1m30s"')
    total = sum(float(number) * _UNIT_S[unit] for number, unit in _DURATION_PART.findall(text))
    if total > 1_000_000_000:
        raise ValueError("expected a shorter duration")
    return total


def read_milliseconds(text: str) -> float:
    """Seconds, from milliseconds as a plain number, or from a duration such as "1s"."""
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text, re.ASCII):
        return float(text) / 1000
    return read_seconds(text)


def read_idle_seconds(text: str) -> float:
    if not (found := read_seconds(text)):
        raise ValueError("expected a duration above 0")
    return found


def read_switch(text: str) -> bool:
    lower = text.lower()
    if lower not in ("1", "true", "yes", "on", "0", "false", "no", "off"):
        raise ValueError("expected true or false")
    return lower in ("1", "true", "yes", "on")


def read_level(text: str) -> str:
    if text.lower() not in LEVELS:
        raise ValueError("expected one of " + ", ".join(LEVELS))
    return text.lower()


def read_text(text: str) -> str:
    return text  # checked with the rest of its table


def read_integer(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII):
        raise ValueError("expected an integer")
    return int(text)


def read_number(text: str) -> float:
    if not re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,15})?", text, re.ASCII):
        raise ValueError("expected a number")
    return float(text)


@attrs.frozen
class Variable:
    """
    An environment variable that stands for a key: of `[server]`, `[telemetry]`, every LLM over HTTP, a type's tables.

    Where *read* gives a mapping, the variable stands for several keys of the table; *key* is the one that is listed.
    """

    name: str
    key: str
    read: Callable[[str], object]
    doc: str
    is_secret: bool = False
    """A value is never shown."""


SERVER_VARIABLES = (
    # PORT before PROXY_API_PORT, LOG_LEVEL after PROXY_API_DEBUG: the later one wins.
    Variable("PROXY_API_HOST", "host", read_text, "The address to bind."),
    Variable("PORT", "port", read_port, "The TCP port, as hosting platforms set it."),
    Variable("PROXY_API_PORT", "port", read_port, "The TCP port; wins over PORT."),
    Variable("PROXY_API_DEBUG", "debug", read_switch, "true: log at level debug, where LOG_LEVEL is not set."),
    Variable("LOG_LEVEL", "log.level", read_level, "trace, debug, info, warn or error."),
)
LLM_VARIABLES = (
    Variable("HTTP_TIMEOUT", "timeouts.first_byte_s", read_seconds, "Longest wait for the first byte of an answer."),
    Variable("MAX_IDLE_CONNS", "pool.max_connections", read_count, "Connections to all hosts together; 0: no bound."),
    Variable(
        "MAX_IDLE_CONNS_PER_HOST", "pool.max_connections_per_host", read_count, "Connections to one host; 0: no bound."
    ),
    Variable("IDLE_CONN_TIMEOUT", "pool.idle_s", read_idle_seconds, "How long an unused connection is kept."),
    Variable(
        "MAX_RETRIES", "retries.max_retries", read_count, "Tries after the first; any of these five switches them on."
    ),
    Variable(
        "INITIAL_BACKOFF",
        "retries.initial_backoff_s",
        read_milliseconds,
        "Longest first wait; milliseconds as a number.",
    ),
    Variable("MAX_BACKOFF", "retries.max_backoff_s", read_milliseconds, "Longest wait; milliseconds as a number."),
    Variable("BACKOFF_FACTOR", "retries.backoff_factor", read_number, "By how much the longest wait grows."),
    Variable("JITTER", "retries.jitter", read_number, "The part of the longest wait that is always waited."),
)


# -- those of OpenTelemetry ------------------------------------------------------------------------------------------

# Its specification has what cannot be understood warned about, and then taken as not set: other programs share these.

_PROTOCOLS = ("http/protobuf", "grpc")
_OTHER_EXPORTERS = frozenset({"none", "console", "logging", "zipkin", "jaeger"})
_WITHOUT_SCHEME = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(4317|443)", re.ASCII)
_IGNORED: Mapping[str, object] = {}


def _ignored(name: str, text: str, expected: str) -> Mapping[str, object]:
    # All in the sentence: it may be said before there is a log that writes values beside it.
    _log.warning(f"{name} in the environment is ignored: expected {expected}, got {shown(text)}")
    return _IGNORED


def _read_endpoint(key: str, text: str) -> Mapping[str, object]:
    """A URL; grpc's may lack a scheme, and is then secure. On another port it must have one, as over HTTP."""
    return {key: f"https://{text}" if _WITHOUT_SCHEME.fullmatch(text) else text, "traces": True}


def _read_protocol(name: str, text: str) -> Mapping[str, object]:
    return {"protocol": text} if text in _PROTOCOLS else _ignored(name, text, " or ".join(_PROTOCOLS))


def _read_sampler(text: str) -> Mapping[str, object]:
    return SAMPLERS.get(text) or _ignored("OTEL_TRACES_SAMPLER", text, "one of " + ", ".join(SAMPLERS))


def _read_sampler_arg(text: str) -> Mapping[str, object]:
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        return _ignored("OTEL_TRACES_SAMPLER_ARG", text, "a number from 0 to 1")
    return {"sample_ratio": ratio}


def _read_exporter(text: str) -> Mapping[str, object]:
    """Names, separated by commas: ours is otlp, and those of exporters that we lack mean that it is not wanted."""
    name, names = "OTEL_TRACES_EXPORTER", {it.strip() for it in text.split(",")} - {""}
    known = names & (_OTHER_EXPORTERS | {"otlp"})
    if known != names or known - {"otlp", "none"}:
        _ignored(name, ",".join(sorted(names - {"otlp", "none"})), "otlp or none")
    return {"traces": "otlp" in known} if known else _IGNORED


def _read_disabled(text: str) -> Mapping[str, object]:
    lower = text.lower()
    if lower not in ("true", "false"):
        return _ignored("OTEL_SDK_DISABLED", text, "true or false")
    return {"traces": False} if lower == "true" else _IGNORED


SAMPLERS: Mapping[str, Mapping[str, object]] = {
    "always_on": {"sample_ratio": 1.0, "follow_parent": False},
    "always_off": {"sample_ratio": 0.0, "follow_parent": False},
    "traceidratio": {"follow_parent": False},
    "parentbased_always_on": {"sample_ratio": 1.0, "follow_parent": True},
    "parentbased_always_off": {"sample_ratio": 0.0, "follow_parent": True},
    "parentbased_traceidratio": {"follow_parent": True},
}

# In the order in which they count; the later one wins. Those that the exporter itself reads are not among them.
TELEMETRY_VARIABLES = (
    Variable(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "endpoint",
        partial(_read_endpoint, "endpoint"),
        "Where to; it also switches traces on.",
    ),
    Variable(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "traces_endpoint",
        partial(_read_endpoint, "traces_endpoint"),
        "The whole URL for traces; it also switches them on.",
    ),
    Variable(
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "protocol",
        partial(_read_protocol, "OTEL_EXPORTER_OTLP_PROTOCOL"),
        "http/protobuf or grpc.",
    ),
    Variable(
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "protocol",
        partial(_read_protocol, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"),
        "The same, for traces alone.",
    ),
    Variable("OTEL_SERVICE_NAME", "service_name", read_text, "The service that the spans name."),
    Variable("OTEL_TRACES_SAMPLER_ARG", "sample_ratio", _read_sampler_arg, "The part of the traces that is recorded."),
    Variable("OTEL_TRACES_SAMPLER", "sample_ratio", _read_sampler, "How it is decided what is recorded."),
    Variable("OTEL_TRACES_EXPORTER", "traces", _read_exporter, "otlp or none."),
    Variable("OTEL_SDK_DISABLED", "traces", _read_disabled, "true: no traces."),
    Variable(
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
        "capture_content",
        lambda text: text.lower() in ("1", "true", "span_only", "span_and_event"),
        "true, SPAN_ONLY or SPAN_AND_EVENT: content goes into spans.",
    ),
    Variable(
        "OTEL_SEMCONV_STABILITY_OPT_IN",
        "newest_metric_names",
        lambda text: {"newest_metric_names": True} if "gen_ai_latest_experimental" in text else {},
        "With gen_ai_latest_experimental in it: the newest names of the GenAI metrics.",
    ),
)


def option_variables(config: type[Any]) -> Iterator[Variable]:
    """The variables that win over keys of the tables that the configuration class *config* stands for."""
    for field, declared in options(config):
        if declared.env is not None:
            yield Variable(declared.env, field.name, _reader(field), declared.doc, is_secret=declared.secret)


def _reader(field: attrs.Attribute[Any]) -> Callable[[str], object]:
    kind = variable_type(field)
    if kind is float and field.name.endswith("_s"):
        return read_seconds
    readers: dict[Any, Callable[[str], object]] = {bool: read_switch, int: read_integer, float: read_number}
    return readers.get(kind, read_text)
