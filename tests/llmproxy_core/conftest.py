"""What the tests of core share."""

from collections.abc import AsyncIterator

import pytest

from llmproxy_core import Tasks


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    """Background tasks, over at the end of the test."""
    tasks = Tasks()
    yield tasks
    await tasks.drain(5)
