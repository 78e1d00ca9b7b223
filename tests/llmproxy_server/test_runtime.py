"""What a process that serves chooses of its interpreter."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from llmproxy_core.config import structure
from llmproxy_core.plugins import Registry
from llmproxy_server.server import Server
from tests.proxy import openai_at


@pytest.fixture
def pythons_own_s() -> Iterator[float]:
    """How long threads take turns; that, and what a process that serves chooses for its memory, is set back."""
    before_s, thresholds = sys.getswitchinterval(), gc.get_threshold()
    yield before_s
    sys.setswitchinterval(before_s)
    gc.set_threshold(*thresholds)
    gc.unfreeze()  # what this test has made goes; all else stays frozen (conftest.py)
    gc.collect()
    gc.freeze()


async def test_the_threads_of_a_process_that_serves_take_short_turns(pythons_own_s: float) -> None:
    registry = Registry.load()
    mapping = {**openai_at("http://127.0.0.1:9/v1"), "server": {"port": 0}}
    server = Server(structure(mapping, registry, {})[0], registry)
    server._ending.set()

    assert await server.serve() == 0

    assert sys.getswitchinterval() <= pythons_own_s / 10
