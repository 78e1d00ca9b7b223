"""What is said of a failed upstream call: the words of both transports, which name the host and the kind, no more."""

from __future__ import annotations

import os
import socket
import ssl
from math import inf

from llmproxy_core.deadline import deadline_exceeded
from llmproxy_core.errors import (
    Overloaded,
    ProxyError,
    UpstreamConnectError,
    UpstreamCut,
    UpstreamGarbage,
    UpstreamTimeout,
)
from llmproxy_core.llm import Timeouts, UpstreamRequest

POOL_FULL_S = 1.0
"""When to come again where all connections of a pool are busy: nobody knows when a call will end."""


def cut(host: str) -> UpstreamCut:
    """The connection is gone, and the answer was not complete."""
    return UpstreamCut(f"The connection to {host} ended before its answer did")


def not_http(host: str) -> UpstreamGarbage:
    return UpstreamGarbage(f"{host} did not answer in HTTP, or with a header line that is too long")


def odd_status(host: str) -> UpstreamGarbage:
    return UpstreamGarbage(f"{host} answered with a status that is none of an answer's")


def odd_coding(host: str) -> UpstreamGarbage:
    return UpstreamGarbage(f"{host} changed to a protocol or a transfer coding that was not asked for")


def broken_framing(host: str) -> UpstreamGarbage:
    return UpstreamGarbage(f"{host} broke the framing of its answer")


def spoke_first(host: str) -> UpstreamGarbage:
    return UpstreamGarbage(f"{host} answered before it was asked")


def connect_timeout(host: str, timeouts: Timeouts) -> UpstreamConnectError:
    return UpstreamConnectError(f"No connection to {host} within {seconds(timeouts.connect_s)}", status=504)


def not_connected_in_time(
    host: str, timeouts: Timeouts, request: UpstreamRequest, *, has_place: bool, total_ends_first: bool
) -> ProxyError:
    """
    The time for a connection is over, or that for the call: the one that *total_ends_first* says.

    Where there was not even a place for it (*has_place*), all connections that our own pool allows were busy: nothing
    was asked of the upstream.
    """
    by_deadline = request.left_s < (timeouts.total_s or inf)
    if total_ends_first and (has_place or by_deadline):
        return total_timeout(host, timeouts, by_deadline=by_deadline)
    if has_place:
        return connect_timeout(host, timeouts)
    within = seconds(timeouts.total_s if total_ends_first else timeouts.connect_s)
    message = f"None of the connections to {host} that `pool` allows became free within {within}"
    return Overloaded(message, code="pool_full", retry_after_s=POOL_FULL_S)


def first_byte_timeout(host: str, timeouts: Timeouts) -> UpstreamTimeout:
    message = f"{host} did not begin to answer within {seconds(timeouts.first_byte_s)}"
    return UpstreamTimeout(message, code="upstream_timeout_first_byte")


def idle_timeout(host: str, timeouts: Timeouts) -> UpstreamTimeout:
    message = f"{host} sent nothing for {seconds(timeouts.idle_s)} within its answer"
    return UpstreamTimeout(message, code="upstream_timeout_idle")


def total_timeout(host: str, timeouts: Timeouts, *, by_deadline: bool) -> UpstreamTimeout:
    """*by_deadline*: it was that of the whole exchange."""
    if by_deadline:
        return deadline_exceeded()
    message = f"{host} did not complete its answer within {seconds(timeouts.total_s)}"
    return UpstreamTimeout(message, code="upstream_timeout_total")


def seconds(value: float | None) -> str:
    """*value* for a sentence: "5 seconds", "0.1 seconds", "1 second"."""
    return "1 second" if value == 1 else f"{value or 0:g} seconds"


def no_connection(host: str, error: BaseException) -> UpstreamConnectError:
    """*error* is what the event loop raised instead of connecting."""
    return UpstreamConnectError(f"Could not connect to {host}: {connect_problem(error)}")


def no_proxy(host: str, status: int | None = None) -> UpstreamConnectError:
    """*status* is what the proxy answered, if it did."""
    problem = "does not let it through" if status is None else f"answered with status {status}"
    return UpstreamConnectError(f"Could not connect to {host}: its proxy {problem}")


def connect_problem(error: BaseException) -> str:
    """Why no connection stands; asyncio's own texts name addresses, an errno's does not."""
    match error:
        case socket.gaierror():
            return "its name cannot be resolved"
        case ssl.SSLCertVerificationError():
            return f"its TLS certificate is not trusted ({error.verify_message or 'no reason given'})"
        case ssl.CertificateError():
            return "its TLS certificate is not trusted (no reason given)"
        case ssl.SSLError():
            return "no TLS connection can be agreed on"
        case OSError(errno=int(number)) if number:
            return os.strerror(number).lower()
        case _:
            return "no connection can be made"
