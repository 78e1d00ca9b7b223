"""HTTP to the upstreams, over aiohttp's client."""

from __future__ import annotations

import asyncio
import io
import ssl
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version

import aiohttp
from yarl import URL

from llmproxy_core.body import PulledBody
from llmproxy_core.errors import UpstreamConnectError, UpstreamGarbage
from llmproxy_core.headers import Headers
from llmproxy_core.llm import Timeouts, UpstreamRequest, UpstreamResponse
from llmproxy_core.services import Pool
from llmproxy_core.tasks import Tasks
from llmproxy_server import transport_errors
from llmproxy_server.transport_body import Response, ResponseBody

READ_BUFFER_BYTES = 65_536
"""The kernel is not read on while more than twice this waits for the reader."""
MAX_HEADER_BYTES = 32_768
"""Of the status line, and of each header field, of an answer."""
_LARGE_BODY_BYTES = 1_048_576


class AiohttpTransport:
    """
    The Transport of llmproxy_core.llm; one pool of connections, one event loop.

    One `open` is one request on the wire: a failure is not retried here, whatever the method. The proxies and the
    netrc of the environment are not read.
    """

    def __init__(self, pool: Pool, tasks: Tasks, *, tls: ssl.SSLContext | None = None) -> None:
        """*tls* says whom to trust; None trusts whom the system does. Certificates are always verified."""
        self._pool = pool
        self._tasks = tasks
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._connector: aiohttp.TCPConnector | None = None
        self._bodies: set[ResponseBody] = set()
        self._closed = False

    @property
    def connections_in_use(self) -> int:
        """Connections that carry a call or are being made; idle ones do not count."""
        return 0 if self._connector is None else len(self._connector._acquired)

    async def open(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
        """
        Send *request* and wait for the head of its answer.

        Raises as the Transport says. What the caller's own body iterator raises passes as it is; the answer may come
        before that iterator is at its end, and then it is `read` that raises it.
        """
        url, host = _target(request.url)
        loop = asyncio.get_running_loop()
        began = loop.time()
        call = _Call(host, timeouts, request.body)
        total = asyncio.timeout_at(began + timeouts.total_s if timeouts.total_s else None)
        try:
            async with total:
                response = await self._started_session().request(
                    request.method,
                    url,
                    headers=request.headers,
                    data=call.data,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(
                        total=None, connect=timeouts.connect_s or None, sock_read=timeouts.first_byte_s or None
                    ),
                    middlewares=(call.send,),
                )
        except TimeoutError:
            if not total.expired():  # the body iterator's own
                raise
            raise transport_errors.total_timeout(host, timeouts) from None
        assert isinstance(response, Response)
        try:
            headers = _headers(response, host)
        except UpstreamGarbage:
            response.close()
            raise
        return UpstreamResponse(response.status, headers, self._body(response, call, began))

    async def aclose(self) -> None:
        """Close every connection, also those of bodies that are still read; these fail as cut."""
        self._closed = True
        for body in list(self._bodies):
            body.close()
        if self._session is not None:
            await self._session.close()

    def _body(self, response: Response, call: _Call, began: float) -> PulledBody:
        body = ResponseBody(response, host=call.host, timeouts=call.timeouts, began=began, holding=self._bodies)
        if call.upload is not None:
            call.upload.on_error = body.fail
            if call.upload.error is not None:  # it came in one turn of the loop with the head
                body.fail(call.upload.error)
        return PulledBody(body.read, tasks=self._tasks, close=body.close, release=body.release)

    def _started_session(self) -> aiohttp.ClientSession:
        """The session; made late, since it belongs to the running event loop."""
        if self._closed:
            raise RuntimeError("the transport is closed")
        if self._session is None:
            self._connector = aiohttp.TCPConnector(
                limit=self._pool.max_connections,
                limit_per_host=self._pool.max_connections_per_host,
                keepalive_timeout=self._pool.idle_s,
                # True is aiohttp's own context, made once for the process when aiohttp is imported.
                ssl=True if self._tls is None else self._tls,
            )
            self._session = aiohttp.ClientSession(
                connector=self._connector,
                response_class=Response,
                # What the request says goes over these.
                headers={"Accept-Encoding": "identity", "User-Agent": f"llmproxy/{version('llmproxy')}"},
                skip_auto_headers=("Accept", "Content-Type"),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                timeout=aiohttp.ClientTimeout(total=None),
                read_bufsize=READ_BUFFER_BYTES,
                max_line_size=MAX_HEADER_BYTES,
                max_field_size=MAX_HEADER_BYTES,
            )
        return self._session


class _Call:
    """One request: its body as aiohttp takes it, and its failures in our words."""

    __slots__ = ("data", "host", "timeouts", "upload")

    def __init__(self, host: str, timeouts: Timeouts, body: bytes | AsyncIterator[bytes] | None) -> None:
        self.host = host
        self.timeouts = timeouts
        self.upload: _Upload | None = None
        self.data: bytes | io.BytesIO | _Upload | None
        if body is None or isinstance(body, bytes):
            # Over 1 MiB aiohttp wants a file: it then writes in pieces, as the upstream takes them.
            self.data = body if body is None or len(body) <= _LARGE_BODY_BYTES else io.BytesIO(body)
        else:
            self.data = self.upload = _Upload(body)

    async def send(self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        """
        Connect, send, and read the head: aiohttp's middleware.

        Translated here and not around the session, which would first send a GET or PUT again.
        """
        try:
            return await handler(request)
        except transport_errors.FAILURES as error:
            if self.upload is not None and self.upload.error is not None:
                failure = self.upload.error
            else:
                failure = transport_errors.upstream_error(error, self.host, self.timeouts)
        raise failure from None


class _Upload:
    """The caller's body iterator; remembers what it raised, since aiohttp makes a network error of it."""

    __slots__ = ("_chunks", "_head_sent", "error", "on_error")

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._head_sent = False
        self.error: Exception | None = None
        self.on_error: Callable[[Exception], None] | None = None

    def __aiter__(self) -> _Upload:
        return self

    async def __anext__(self) -> bytes:
        if not self._head_sent:
            self._head_sent = True
            return b""  # aiohttp keeps the head until the first piece, which may be long in coming
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            raise
        except Exception as error:
            self.error = error
            if self.on_error is not None:
                self.on_error(error)
            raise


def _target(url: str) -> tuple[URL, str]:
    """*url* as it is written, no part of it quoted again, and its host and port."""
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise UpstreamConnectError("The URL of the upstream has characters that cannot be sent")
    try:
        target = URL(url, encoded=True)
        host = target.host_port_subcomponent
    except ValueError:
        target, host = URL(), None
    if not host or target.scheme not in ("http", "https"):
        raise UpstreamConnectError("The URL of the upstream is not one that can be called")
    return target, host


def _headers(response: Response, host: str) -> Headers:
    """The header fields of *response*; UpstreamGarbage where they cannot be those of an answer to us."""
    codings = response.headers.getall("Transfer-Encoding", [])
    if response.status == 101 or any(coding.lower() != "chunked" for coding in codings):  # we ask for neither
        raise UpstreamGarbage(f"{host} changed to a protocol or a transfer coding that was not asked for")
    return Headers([(name.lower(), _text(value)) for name, value in response.headers.items()])


def _text(value: str) -> str:
    """*value* as text that can be encoded: aiohttp has surrogates for bytes that are no UTF-8; they are Latin-1."""
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogateescape").decode("latin-1")
    return value
