"""Every form of Retry-After that providers send is understood, and none breaks the error it came with."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core.headers import Headers
from llmproxy_core.retry_after import retry_after

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        pytest.param({}, None, id="nothing said"),
        pytest.param({"retry-after": "20"}, 20.0, id="seconds"),
        pytest.param({"retry-after": "0.25"}, 0.25, id="a fraction of a second"),
        pytest.param({"retry-after": " 3 "}, 3.0, id="with blanks"),
        pytest.param({"retry-after": "-5"}, 0.0, id="negative"),
        pytest.param({"retry-after": "Fri, 20 Nov 2026 12:00:30 GMT"}, 30.0, id="date"),
        pytest.param({"retry-after": "Fri, 20 Nov 2026 13:00:30 +0100"}, 30.0, id="date with a zone"),
        pytest.param({"retry-after": "Fri, 20 Nov 2026 12:00:30 -0000"}, 30.0, id="date of unknown zone"),
        pytest.param({"retry-after": "Fri, 20 Nov 2020 12:00:30 GMT"}, 0.0, id="date in the past"),
        pytest.param({"retry-after": "Friday, 20-Nov-26 12:00:30 GMT"}, 30.0, id="date in the form of RFC 850"),
        pytest.param({"retry-after": "soon"}, None, id="neither form"),
        pytest.param({"retry-after": ""}, None, id="empty"),
        pytest.param({"retry-after": "nan"}, None, id="not a number"),
        pytest.param({"retry-after": "1e999"}, None, id="infinite"),
        pytest.param({"retry-after": "1e306"}, 1e9, id="longer than anybody waits"),
        pytest.param({"retry-after": "Fri, 99 Nov 2026 99:00:30 GMT"}, None, id="no such date"),
        pytest.param({"retry-after-ms": "1500"}, 1.5, id="milliseconds"),
        pytest.param({"retry-after-ms": "1500", "retry-after": "2"}, 1.5, id="milliseconds are finer"),
        pytest.param({"retry-after-ms": "x", "retry-after": "2"}, 2.0, id="bad milliseconds"),
    ],
)
def test_the_wait_is_read(fields: dict[str, str], seconds: float | None) -> None:
    assert retry_after(Headers(fields.items()), NOW) == seconds


@given(st.text())
def test_no_value_breaks_it(value: str) -> None:
    for name in ("retry-after", "retry-after-ms"):
        seconds = retry_after(Headers([(name, value)]), NOW)

        assert seconds is None or 0.0 <= seconds < float("inf")
