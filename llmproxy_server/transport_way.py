"""How aiohttp makes its connections: straight, through a proxy, to a Unix socket."""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from llmproxy_core.errors import ConfigError, Problem
from llmproxy_core.services import Pool
from llmproxy_server.transport_protocol import UpstreamProtocol

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler

_BY_HTTP = ("http", "https")


class Way:
    """The way of one pool. ConfigError where it needs what is not installed."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._proxy: URL | None = None
        self._auth = ""
        self._socks: Any = None
        if pool.proxy is not None:
            url = URL(pool.proxy.reveal())
            if url.scheme in _BY_HTTP:
                if url.user is not None:
                    credentials = f"{url.user}:{url.password or ''}".encode()
                    self._auth = f"Basic {b64encode(credentials).decode()}"
                self._proxy = url.with_user(None)
            else:
                self._proxy, self._socks = url, _socks()

    @property
    def _by_http(self) -> URL | None:
        return self._proxy if self._socks is None else None

    def connector(self, tls: ssl.SSLContext | None) -> aiohttp.BaseConnector:
        """
        What keeps and makes the connections; *tls* says whom to trust, None trusts whom the system does.

        Their protocol is UpstreamProtocol, but of SOCKS.
        """
        connector = self._connector(tls)
        connector._factory = cast("partial[ResponseHandler]", partial(UpstreamProtocol, loop=connector._loop))
        return connector

    def _connector(self, tls: ssl.SSLContext | None) -> aiohttp.BaseConnector:
        pool = self._pool
        bounds: dict[str, Any] = {
            "limit": pool.max_connections,
            "limit_per_host": pool.max_connections_per_host,
            "keepalive_timeout": pool.idle_s,
        }
        if pool.unix_socket is not None:
            return aiohttp.UnixConnector(pool.unix_socket, **bounds)
        # True is aiohttp's own context, made once for the process when aiohttp is imported.
        bounds["ssl"] = True if tls is None else tls
        if self._socks is None or self._proxy is None:
            return aiohttp.TCPConnector(**bounds)
        version = self._socks.ProxyType.SOCKS4 if self._proxy.scheme == "socks4" else self._socks.ProxyType.SOCKS5
        connector: aiohttp.BaseConnector = self._socks.ProxyConnector(
            host=self._proxy.host,
            port=self._proxy.port or 1080,
            proxy_type=version,
            username=self._proxy.user,
            password=self._proxy.password,
            rdns=self._proxy.scheme == "socks5h",
            **bounds,
        )
        return connector

    def address(self, url: URL, loop: asyncio.AbstractEventLoop) -> aiohttp.ClientRequest:
        """What the connector takes for the address of *url*."""
        headers = CIMultiDict({"Proxy-Authorization": self._auth}) if self._auth else None
        request = aiohttp.ClientRequest("GET", url.origin(), loop=loop, proxy=self._by_http, proxy_headers=headers)
        if headers is not None:
            # aiohttp would add it when it connects, and then not find again what it has kept by all of these.
            headers["Host"] = request.headers["Host"]
        return request

    def begin(self, url: URL, host: str) -> str:
        """
        What heads to *url* begin with, after the method, up to the first field but ours.

        A proxy that is asked in HTTP is told the whole URL (RFC 9112 section 3.2.2); through one that is asked for a
        tunnel the request is as any other.
        """
        if self._by_http is None or url.scheme == "https":
            return f" {url.raw_path_qs} HTTP/1.1\r\nhost: {host}\r\n"
        begin = f" http://{host}{url.raw_path_qs} HTTP/1.1\r\nhost: {host}\r\n"
        return f"{begin}proxy-authorization: {self._auth}\r\n" if self._auth else begin

    @property
    def failures(self) -> tuple[type[Exception], ...]:
        """What else than aiohttp's own may be raised instead of a connection."""
        if self._socks is None:
            return ()
        return self._socks.ProxyError, self._socks.ProxyConnectionError, self._socks.ProxyTimeoutError


def _socks() -> Any:
    try:
        return import_module("aiohttp_socks")
    except ImportError:
        message = 'a SOCKS proxy needs a library more: install "llmproxy[socks]", or aiohttp-socks'
        raise ConfigError([Problem("llm", message)]) from None
