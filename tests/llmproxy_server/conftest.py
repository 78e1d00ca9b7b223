"""Tests of the wire run on both kinds of connections, and on both event loops, which differ in when they do what."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvloop

from tests.page_first import PAGE, open_page
from tests.proxy import Proxy
from tests.rawclient import opening

ON_BOTH_LOOPS = (
    "test_edge",
    "test_listener",
    "test_pages",
    "test_transport",
    "test_fuzz",
    "test_differential",
    "test_upstream_",
)
"""Modules whose names begin so."""
ONE_WAY = "ONE_WAY" in os.environ
"""Whether the server's own loop and the wire are enough: where other versions of the libraries are what matters."""
Factory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Factory]:
    if item.path.name.startswith(ON_BOTH_LOOPS):
        both: dict[str, Factory] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
        return {"uvloop": uvloop.new_event_loop} if ONE_WAY else both
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture(params=["wire"] if ONE_WAY else ["wire", "page"])
def both_ways(request: pytest.FixtureRequest) -> Iterator[None]:
    """Connections stay with the wire, or are lent to aiohttp for a page that is asked for first."""
    if request.param == "wire":
        yield
        return
    if request.node.get_closest_marker("wire"):
        pytest.skip("about the wire's own connections")
    opening.first, Proxy.pages = open_page, [PAGE]
    yield
    opening.first, Proxy.pages = None, ()


@pytest.fixture
def heads_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The head of a stream of which nothing has come is sent in a moment, not in one or two seconds."""
    monkeypatch.setattr("llmproxy_server.call_stream.HEAD_HELD_S", 0.02)
    monkeypatch.setattr("llmproxy_server.edge._SWEEP_S", 0.02)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that nobody signed, with its key."""
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    pem = folder / "both.pem"
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(folder / "key.pem")]
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    command = [openssl, "req", "-x509", *key, *name, "-out", str(folder / "certificate.pem")]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    pem.write_bytes((folder / "certificate.pem").read_bytes() + (folder / "key.pem").read_bytes())
    return pem
