"""The one seam between aiohttp's exceptions and ours."""

from __future__ import annotations

import aiohttp
from aiohttp.client_exceptions import UnixClientConnectorError
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EofStream

from llmproxy_core.errors import UpstreamConnectError, UpstreamError
from llmproxy_server.transport_words import connect_problem, cut, no_proxy, not_http

FAILURES = (aiohttp.ClientError, HttpProcessingError, EofStream, OSError)
"""What aiohttp raises for a failure of the network or of the upstream."""


def upstream_error(error: BaseException, host: str) -> UpstreamError:
    """
    Our word for *error*, one of FAILURES, of a call to *host* ("name" or "name:port").

    The message names the host and the kind, nothing else: aiohttp's own texts quote URLs with their query and bytes
    of the answer, and its exceptions hold the request's headers. So raise what this gives `from None`.
    """
    match error:
        case UnixClientConnectorError():
            return UpstreamConnectError(f"Could not connect to {host} over its Unix socket: {_connect_problem(error)}")
        case aiohttp.ClientConnectorError():
            return UpstreamConnectError(f"Could not connect to {host}: {_connect_problem(error)}")
        case HttpProcessingError():
            return not_http(host)
        case _:
            return cut(host)


def connect_error(error: BaseException, host: str) -> UpstreamError:
    """The same, of an *error* instead of a connection."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return no_proxy(host, error.status)
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return UpstreamConnectError(f"Could not connect to the proxy of {host}: {_connect_problem(error)}")
    return upstream_error(error, host)


def _connect_problem(error: aiohttp.ClientConnectorError) -> str:
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "its name cannot be resolved"
        case aiohttp.ClientConnectorCertificateError():
            return connect_problem(error.certificate_error)
        case aiohttp.ClientSSLError():
            return "no TLS connection can be agreed on"
        case _:
            return connect_problem(error.os_error)
