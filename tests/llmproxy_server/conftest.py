"""Tests of the wire run on both kinds of connections, and on both event loops, which differ in when they do what."""

import asyncio
from collections.abc import Callable, Iterator, Mapping

import pytest
import uvloop

from tests.page_first import PAGE, open_page
from tests.proxy import Proxy
from tests.rawclient import opening

ON_BOTH_LOOPS = ("test_edge", "test_pages", "test_transport", "test_fuzz", "test_differential", "test_upstream_")
"""Modules whose names begin so."""
Factory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Factory]:
    if item.path.name.startswith(ON_BOTH_LOOPS):
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture(params=["wire", "page"])
def both_ways(request: pytest.FixtureRequest) -> Iterator[None]:
    """Connections stay with the wire, or are handed over to aiohttp by a page that is asked for first."""
    if request.param == "wire":
        yield
        return
    if request.node.get_closest_marker("wire"):
        pytest.skip("about the wire's own connections")
    opening.first, Proxy.pages = open_page, [PAGE]
    yield
    opening.first, Proxy.pages = None, ()
