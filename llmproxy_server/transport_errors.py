"""The one seam between aiohttp's exceptions and ours."""

from __future__ import annotations

import os
import ssl

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EofStream

from llmproxy_core.errors import (
    UpstreamConnectError,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    UpstreamTimeout,
)
from llmproxy_core.llm import Timeouts

FAILURES = (aiohttp.ClientError, HttpProcessingError, EofStream, OSError)
"""What aiohttp raises for a failure of the network or of the upstream."""


def upstream_error(error: BaseException, host: str) -> UpstreamError:
    """
    Our word for *error*, one of FAILURES, of a call to *host* ("name" or "name:port").

    The message names the host and the kind, nothing else: aiohttp's own texts quote URLs with their query and bytes
    of the answer, and its exceptions hold the request's headers. So raise what this gives `from None`.
    """
    match error:
        case aiohttp.ClientConnectorError():
            return UpstreamConnectError(f"Could not connect to {host}: {_connect_problem(error)}")
        case HttpProcessingError():
            return UpstreamGarbage(f"{host} did not answer in HTTP, or with a header line that is too long")
        case _:
            return cut(host)


def cut(host: str) -> UpstreamCut:
    """The connection is gone, and the answer was not complete."""
    return UpstreamCut(f"The connection to {host} ended before its answer did")


def connect_timeout(host: str, timeouts: Timeouts) -> UpstreamConnectError:
    return UpstreamConnectError(f"No connection to {host} within {seconds(timeouts.connect_s)}", status=504)


def first_byte_timeout(host: str, timeouts: Timeouts) -> UpstreamTimeout:
    message = f"{host} did not begin to answer within {seconds(timeouts.first_byte_s)}"
    return UpstreamTimeout(message, code="upstream_timeout_first_byte")


def idle_timeout(host: str, timeouts: Timeouts) -> UpstreamTimeout:
    message = f"{host} sent nothing for {seconds(timeouts.idle_s)} within its answer"
    return UpstreamTimeout(message, code="upstream_timeout_idle")


def total_timeout(host: str, timeouts: Timeouts) -> UpstreamTimeout:
    message = f"{host} did not complete its answer within {seconds(timeouts.total_s)}"
    return UpstreamTimeout(message, code="upstream_timeout_total")


def seconds(value: float | None) -> str:
    """*value* for a sentence: "5 seconds", "0.1 seconds", "1 second"."""
    return "1 second" if value == 1 else f"{value or 0:g} seconds"


def _connect_problem(error: aiohttp.ClientConnectorError) -> str:
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "its name cannot be resolved"
        case aiohttp.ClientConnectorCertificateError():
            cause = error.certificate_error
            reason = cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else ""
            return f"its TLS certificate is not trusted ({reason or 'no reason given'})"
        case aiohttp.ClientSSLError():
            return "no TLS connection can be agreed on"
        case _:  # asyncio's own text names addresses; the errno's does not
            number = error.os_error.errno
            return os.strerror(number).lower() if number else "no connection can be made"
