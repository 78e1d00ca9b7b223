"""Token counts: each counted once, whatever a provider says of them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmproxy_gemini.usage import _read_odd, read_usage, write_usage

from llmproxy_core import Usage, UsageSource

ESTIMATED = UsageSource.ESTIMATED
each = pytest.mark.parametrize


def usage_of(**members: Any) -> Usage | None:
    return read_usage(json.dumps(members).encode())


@each(
    ("members", "usage"),
    [
        ({"promptTokenCount": 9, "candidatesTokenCount": 5, "totalTokenCount": 14}, Usage(9, 5)),
        (
            {"promptTokenCount": 9, "candidatesTokenCount": 5, "thoughtsTokenCount": 6, "totalTokenCount": 20},
            Usage(9, 11, reasoning_tokens=6),
        ),
        ({"promptTokenCount": 9, "toolUsePromptTokenCount": 4, "totalTokenCount": 13}, Usage(13, 0)),
        ({"promptTokenCount": 9, "cachedContentTokenCount": 4, "totalTokenCount": 9}, Usage(9, 0, 4)),
        ({"promptTokenCount": 9, "totalTokenCount": 20}, Usage(9, 11)),
        ({"totalTokenCount": 20, "candidatesTokenCount": 5}, Usage(15, 5)),
        (
            {
                "promptTokenCount": 9,
                "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 5}, {"modality": "AUDIO", "tokenCount": 4}],
            },
            Usage(9, 0, audio_input_tokens=4, source=ESTIMATED),
        ),
        (
            {
                "promptTokenCount": 9,
                "candidatesTokenCount": 1,
                "cachedContentTokenCount": 5,
                "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 3}, {"modality": "AUDIO", "tokenCount": 6}],
                "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 4}, {"modality": "TEXT", "tokenCount": 1}],
            },
            Usage(9, 1, 5, audio_input_tokens=2),
        ),
        ({"promptTokenCount": 1, "candidatesTokenCount": 2, "serviceTier": "flex"}, Usage(1, 2, service_tier="flex")),
        ({"promptTokenCount": 1, "cachedContentTokenCount": 5}, Usage(1, 0, 1, source=ESTIMATED)),
        ({"promptTokenCount": -1, "candidatesTokenCount": 2}, Usage(0, 2, source=ESTIMATED)),
        ({"promptTokenCount": 9, "candidatesTokenCount": -1, "thoughtsTokenCount": 6}, Usage(9, 0, source=ESTIMATED)),
        ({"promptTokenCount": 9, "candidatesTokenCount": 1.5, "totalTokenCount": 12}, Usage(9, 3, source=ESTIMATED)),
        ({"promptTokenCount": "many"}, Usage(source=ESTIMATED)),
        ({"promptTokenCount": 9}, Usage(9, 0, source=ESTIMATED)),
        ({"trafficType": "PROVISIONED_THROUGHPUT"}, None),
    ],
)
def test_counts_are_read_with_their_own_meaning(members: dict[str, Any], usage: Usage | None) -> None:
    assert usage_of(**members) == usage


@each("text", [b"null", b"[]", b"{", b'"x"'])
def test_what_is_no_usage_is_none(text: bytes) -> None:
    assert read_usage(text) is None


COUNT = st.none() | st.integers(-2, 40) | st.sampled_from(["7", 1.5, True])
NAMES = ("promptTokenCount", "candidatesTokenCount", "totalTokenCount", "thoughtsTokenCount")
MORE = ("toolUsePromptTokenCount", "cachedContentTokenCount")


@given(members=st.dictionaries(st.sampled_from(NAMES + MORE), COUNT))
def test_the_usual_way_gives_what_the_careful_one_gives(members: dict[str, Any]) -> None:
    assert read_usage(json.dumps(members).encode()) == _read_odd(json.dumps(members).encode())


@given(
    asked=st.integers(0, 1000), answered=st.integers(0, 1000), cached=st.integers(0, 1000), thought=st.integers(0, 1000)
)
def test_what_is_written_is_read_again(asked: int, answered: int, cached: int, thought: int) -> None:
    usage = Usage(asked, answered, min(cached, asked), reasoning_tokens=min(thought, answered))

    assert read_usage(write_usage(usage)) == usage
