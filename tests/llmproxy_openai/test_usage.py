"""Token counts of OpenAI and of compatible servers mean the same, and no count breaks an answer."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core.usage import Usage
from llmproxy_openai import read_usage, write_usage


def read(**counts: object) -> Usage | None:
    return read_usage(json.dumps(counts).encode())


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        pytest.param({"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}, Usage(5, 7), id="plain"),
        pytest.param({"prompt_tokens": 5, "total_tokens": 5}, Usage(5, 0), id="embeddings"),
        pytest.param({"total_tokens": 5}, Usage(5, 0), id="total alone"),
        pytest.param({"completion_tokens": 3, "total_tokens": 8}, Usage(5, 3), id="input left out"),
        pytest.param(
            {
                "prompt_tokens": 9,
                "completion_tokens": 8,
                "total_tokens": 17,
                "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
                "completion_tokens_details": {"reasoning_tokens": 6},
            },
            Usage(9, 8, 4, 2, 6),
            id="details",
        ),
        pytest.param(
            {"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 5},
            Usage(9, 1, 4),
            id="DeepSeek's cache",
        ),
        pytest.param(
            {"prompt_tokens": 9, "completion_tokens": 1, "num_cached_tokens": 4}, Usage(9, 1, 4), id="Mistral"
        ),
        pytest.param(
            {
                "prompt_tokens": 9,
                "completion_tokens": 2,
                "total_tokens": 16,
                "completion_tokens_details": {"reasoning_tokens": 5},
            },
            Usage(9, 7, reasoning_tokens=5),
            id="xAI counts thinking beside the output",
        ),
        pytest.param(
            {"prompt_tokens": 66, "completion_tokens": 6, "total_tokens": 100},
            Usage(66, 34, reasoning_tokens=28),
            id="Gemini's thinking is only in the total",
        ),
        pytest.param(
            {"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 9}},
            Usage(3, 1, 3),
            id="more cached than asked",
        ),
        pytest.param({"prompt_tokens": 3, "completion_tokens": -1}, Usage(3, 0), id="negative"),
        pytest.param({"prompt_tokens": 3.0, "completion_tokens": 1}, Usage(3, 1), id="with a point"),
        pytest.param({"prompt_tokens": "3", "completion_tokens": 1}, Usage(0, 1), id="text"),
        pytest.param({"prompt_tokens": True, "completion_tokens": 1}, Usage(0, 1), id="a boolean"),
        pytest.param({"prompt_tokens": 10**30, "completion_tokens": 1}, Usage(10**9, 1), id="huge"),
        pytest.param(
            {"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": 7}, Usage(3, 1), id="odd details"
        ),
        pytest.param({}, None, id="empty"),
        pytest.param({"prompt_tokens": None, "cost": 0.1}, None, id="no counts"),
    ],
)
def test_counts_are_read(counts: dict[str, Any], usage: Usage | None) -> None:
    assert read(**counts) == usage


@pytest.mark.parametrize("text", [b"null", b"5", b"[]", b'"x"', b'{"prompt_tokens":NaN}', b"{", b"", b'{"a":"\xff"}'])
def test_what_is_no_usage_is_none(text: bytes) -> None:
    assert read_usage(text) is None


COUNTS = ["prompt_tokens", "completion_tokens", "total_tokens", "prompt_cache_hit_tokens", "num_cached_tokens"]
DETAILS = ["prompt_tokens_details", "completion_tokens_details", "cached_tokens", "reasoning_tokens"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(COUNTS + DETAILS), inner, max_size=5),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(COUNTS + DETAILS), JSON))
def test_no_usage_breaks_an_answer(counts: dict[str, Any]) -> None:
    usage = read(**counts)

    if usage is not None:
        assert 0 <= usage.cached_input_tokens + usage.cache_write_tokens <= usage.input_tokens <= 10**9
        assert 0 <= usage.reasoning_tokens <= usage.output_tokens <= 2 * 10**9


@given(st.lists(st.integers(0, 10**6), min_size=5, max_size=5))
def test_what_is_written_is_read_again(counts: list[int]) -> None:
    asked, answered, cached, written, reasoning = counts
    usage = Usage(asked + cached + written, answered + reasoning, cached, written, reasoning)

    assert read_usage(write_usage(usage)) == usage
