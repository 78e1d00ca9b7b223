"""The limit of open files: raised as far as it may be, and said at the start."""

import logging
import resource
from collections.abc import Iterator

import attrs
import pytest

from llmproxy_core.config import ServerConfig
from llmproxy_server import descriptors


@pytest.fixture
def low() -> Iterator[int]:
    """A soft limit far below the hard one, for as long as the test runs."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    yield 512
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_is_raised_as_far_as_it_may_be(low: int) -> None:
    limit = descriptors.raise_limit()

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert limit == soft > low
    assert soft == min(hard, 1 << 20) or hard == resource.RLIM_INFINITY
    assert descriptors.raise_limit() == limit


@pytest.mark.parametrize(("limit", "level"), [(1000, "WARNING"), (100_000, "INFO")])
def test_it_is_said_and_warned_of_where_it_is_too_low(limit: int, level: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    descriptors.say(limit, attrs.evolve(ServerConfig(), max_in_flight=1000))

    (record,) = caplog.records
    assert record.levelname == level
    assert getattr(record, "fields", {}).get("descriptors", limit) == limit


def test_where_there_is_no_limit_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    descriptors.say(None, ServerConfig())

    assert not caplog.records
