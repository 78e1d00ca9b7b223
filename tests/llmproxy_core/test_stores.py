"""Windows are calendar windows in UTC, the same for everybody, all year round."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core.stores import Window
from llmproxy_core.testing.stores import epoch

ENDING = [window for window in Window if window is not Window.TOTAL]


@pytest.mark.parametrize(
    ("window", "now", "starts", "resets"),
    [
        pytest.param(
            Window.MINUTE, "2026-11-20T12:34:56.789", "2026-11-20T12:34:00", "2026-11-20T12:35:00", id="minute"
        ),
        pytest.param(
            Window.MINUTE, "2026-12-31T23:59:59.999", "2026-12-31T23:59:00", "2027-01-01T00:00:00", id="last minute"
        ),
        pytest.param(
            Window.MINUTE, "2016-12-31T23:59:59.999", "2016-12-31T23:59:00", "2017-01-01T00:00:00", id="leap second"
        ),
        pytest.param(Window.HOUR, "2026-11-20T12:34:56.789", "2026-11-20T12:00:00", "2026-11-20T13:00:00", id="hour"),
        pytest.param(
            Window.HOUR, "2026-03-29T01:30:00", "2026-03-29T01:00:00", "2026-03-29T02:00:00", id="Europe's clocks go on"
        ),
        pytest.param(
            Window.HOUR,
            "2026-10-25T01:30:00",
            "2026-10-25T01:00:00",
            "2026-10-25T02:00:00",
            id="Europe's clocks go back",
        ),
        pytest.param(Window.DAY, "2026-11-20T12:34:56", "2026-11-20T00:00:00", "2026-11-21T00:00:00", id="day"),
        pytest.param(
            Window.DAY, "2026-03-29T12:00:00", "2026-03-29T00:00:00", "2026-03-30T00:00:00", id="a day of 24 hours"
        ),
        pytest.param(
            Window.DAY, "2028-02-28T23:59:59", "2028-02-28T00:00:00", "2028-02-29T00:00:00", id="before a leap day"
        ),
        pytest.param(Window.DAY, "2028-02-29T00:00:00", "2028-02-29T00:00:00", "2028-03-01T00:00:00", id="leap day"),
        pytest.param(Window.DAY, "2027-02-28T23:59:59", "2027-02-28T00:00:00", "2027-03-01T00:00:00", id="no leap day"),
        pytest.param(
            Window.DAY, "2100-02-28T23:59:59", "2100-02-28T00:00:00", "2100-03-01T00:00:00", id="2100 has no leap day"
        ),
        pytest.param(Window.DAY, "2026-12-31T23:59:59", "2026-12-31T00:00:00", "2027-01-01T00:00:00", id="last day"),
        pytest.param(Window.MONTH, "2026-11-20T12:34:56", "2026-11-01T00:00:00", "2026-12-01T00:00:00", id="month"),
        pytest.param(
            Window.MONTH, "2026-01-31T23:59:59", "2026-01-01T00:00:00", "2026-02-01T00:00:00", id="31st of January"
        ),
        pytest.param(
            Window.MONTH, "2027-02-28T23:59:59", "2027-02-01T00:00:00", "2027-03-01T00:00:00", id="month of 28 days"
        ),
        pytest.param(
            Window.MONTH, "2028-02-29T23:59:59", "2028-02-01T00:00:00", "2028-03-01T00:00:00", id="month of 29 days"
        ),
        pytest.param(
            Window.MONTH, "2026-04-30T23:59:59", "2026-04-01T00:00:00", "2026-05-01T00:00:00", id="month of 30 days"
        ),
        pytest.param(
            Window.MONTH, "2026-12-31T23:59:59", "2026-12-01T00:00:00", "2027-01-01T00:00:00", id="last month"
        ),
    ],
)
def test_a_window_has_its_first_moment_and_the_next_ones(window: Window, now: str, starts: str, resets: str) -> None:
    assert window.bounds(epoch(now)) == (epoch(starts), epoch(resets))


@pytest.mark.parametrize("window", ENDING)
def test_the_first_moment_belongs_to_the_window(window: Window) -> None:
    _, resets = window.bounds(epoch("2026-12-31T23:59:59"))

    assert resets == epoch("2027-01-01T00:00:00")
    assert window.bounds(resets)[0] == resets


def test_the_last_microsecond_of_a_window_is_not_rounded_into_the_next() -> None:
    assert Window.MINUTE.bounds(59.9999997) == (0.0, 60.0)


def test_the_total_has_no_end() -> None:
    assert Window.TOTAL.bounds(epoch("2026-11-20T12:34:56")) == (0.0, None)


@pytest.mark.parametrize("window", ENDING)
@given(milliseconds=st.integers(0, 4_000_000_000_000))
def test_every_moment_is_in_one_window_and_windows_touch(window: Window, milliseconds: int) -> None:
    now = milliseconds / 1000
    starts, resets = window.bounds(now)

    assert resets is not None
    assert starts <= now < resets
    assert window.bounds(starts) == window.bounds(resets - 0.001) == (starts, resets)
    assert window.bounds(resets)[0] == resets


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "EST5EDT,M3.2.0,M11.1.0")  # written out, it needs no database of zones
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("new_york")
def test_the_time_zone_of_the_machine_does_not_matter() -> None:
    assert time.timezone == 5 * 3600

    assert Window.DAY.bounds(epoch("2026-11-01T05:30:00")) == (
        epoch("2026-11-01T00:00:00"),
        epoch("2026-11-02T00:00:00"),
    )
