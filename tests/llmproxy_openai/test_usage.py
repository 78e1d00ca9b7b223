"""Token counts of OpenAI and of compatible servers mean the same, and no count breaks an answer."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core.chat import UsageReported
from llmproxy_core.money import Money, Price
from llmproxy_core.usage import Usage, UsageSource
from llmproxy_core.wire import MOST_TOKENS
from llmproxy_openai import read_usage, write_usage
from llmproxy_openai.facts import decode_outline, model_in, usage_in
from llmproxy_openai.scan import ChunkScanner
from llmproxy_openai.stream_read import ChunkReader

ESTIMATED = UsageSource.ESTIMATED


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
            Usage(3, 1, 3, source=ESTIMATED),
            id="more cached than asked",
        ),
        pytest.param({"prompt_tokens": 3, "completion_tokens": -1}, Usage(3, 0, source=ESTIMATED), id="negative"),
        pytest.param({"prompt_tokens": 3.0, "completion_tokens": 1}, Usage(3, 1), id="with a point"),
        pytest.param({"prompt_tokens": "3", "completion_tokens": 1}, Usage(0, 1, source=ESTIMATED), id="text"),
        pytest.param({"prompt_tokens": True, "completion_tokens": 1}, Usage(0, 1, source=ESTIMATED), id="a boolean"),
        pytest.param({"prompt_tokens": 10**30, "completion_tokens": 1}, Usage(0, 1, source=ESTIMATED), id="huge"),
        pytest.param(
            {"prompt_tokens": MOST_TOKENS, "completion_tokens": MOST_TOKENS},
            Usage(MOST_TOKENS, MOST_TOKENS),
            id="the most",
        ),
        pytest.param(
            {"prompt_tokens": 3, "completion_tokens": MOST_TOKENS + 1}, Usage(3, 0, source=ESTIMATED), id="too many"
        ),
        pytest.param({"prompt_tokens": 3, "completion_tokens": 1.5}, Usage(3, 0, source=ESTIMATED), id="a fraction"),
        pytest.param(
            {"prompt_tokens": 3, "completion_tokens": -1, "total_tokens": 9},
            Usage(3, 6, source=ESTIMATED),
            id="the total tells what the lie does not",
        ),
        pytest.param(
            {"prompt_tokens": 3, "completion_tokens": -1, "total_tokens": 3},
            Usage(3, 0, source=ESTIMATED),
            id="a total that shares the lie",
        ),
        pytest.param(
            {"prompt_tokens": -3, "completion_tokens": -1, "total_tokens": 9}, Usage(source=ESTIMATED), id="two lies"
        ),
        pytest.param({"prompt_tokens": 3}, Usage(3, 0, source=ESTIMATED), id="no output"),
        pytest.param({"prompt_tokens": 3, "completion_tokens": 0}, Usage(3, 0), id="none used"),
        pytest.param(
            {"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": 7}, Usage(3, 1), id="odd details"
        ),
        pytest.param({"prompt_tokens": 3, "completion_tokens": None}, Usage(3, 0, source=ESTIMATED), id="null"),
        pytest.param(
            {
                "prompt_tokens": 9,
                "completion_tokens": 8,
                "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 5, "text_tokens": 4},
                "completion_tokens_details": {"audio_tokens": 6, "text_tokens": 2},
            },
            Usage(9, 8, 4, audio_input_tokens=5, audio_output_tokens=6),
            id="audio",
        ),
        pytest.param(
            {
                "prompt_tokens": 9,
                "completion_tokens": 8,
                "prompt_tokens_details": {"cached_tokens": 6, "audio_tokens": 7},
            },
            Usage(9, 8, 6, audio_input_tokens=7),
            id="audio that was cached",
        ),
        pytest.param(
            {
                "prompt_tokens": 2,
                "completion_tokens": 1,
                "prompt_tokens_details": {"audio_tokens": 5},
                "completion_tokens_details": {"audio_tokens": 6},
            },
            Usage(2, 1, audio_input_tokens=2, audio_output_tokens=1, source=ESTIMATED),
            id="more audio than there is",
        ),
        pytest.param(
            {"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": {"cache_write_tokens": 9}},
            Usage(3, 1, cache_write_tokens=3, source=ESTIMATED),
            id="more written than asked",
        ),
        pytest.param(
            {"prompt_tokens": 3, "completion_tokens": 1, "completion_tokens_details": {"reasoning_tokens": 9}},
            Usage(3, 1, reasoning_tokens=1, source=ESTIMATED),
            id="more thought than answered",
        ),
        pytest.param(
            {"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": -2}},
            Usage(3, 1, source=ESTIMATED),
            id="a negative detail",
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
DETAILS = ["prompt_tokens_details", "completion_tokens_details"]
DETAILS += ["cached_tokens", "cache_write_tokens", "reasoning_tokens", "audio_tokens"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(COUNTS + DETAILS), inner, max_size=5),
    max_leaves=12,
)


DEAR = Price(10**12, 10**12, 10**11, 10**13, 10**13, 10**13)


@given(st.dictionaries(st.sampled_from(COUNTS + DETAILS), JSON))
def test_no_usage_breaks_an_answer(counts: dict[str, Any]) -> None:
    usage = read(**counts)

    if usage is not None:
        assert 0 <= usage.cached_input_tokens + usage.cache_write_tokens <= usage.input_tokens <= MOST_TOKENS
        assert 0 <= usage.reasoning_tokens <= usage.output_tokens <= 2 * MOST_TOKENS
        assert 0 <= usage.audio_input_tokens <= usage.input_tokens
        assert 0 <= usage.audio_output_tokens <= usage.output_tokens
        assert Money() <= DEAR.cost(usage) <= DEAR.bound(usage.input_tokens, usage.output_tokens)


@given(st.lists(st.integers(0, 10**6), min_size=7, max_size=7))
def test_what_is_written_is_read_again(counts: list[int]) -> None:
    asked, answered, cached, written, reasoning, heard, spoken = counts
    usage = Usage(
        asked + cached + written + heard,
        answered + reasoning + spoken,
        cached,
        written,
        reasoning,
        audio_input_tokens=heard,
        audio_output_tokens=spoken,
    )

    assert read_usage(write_usage(usage)) == usage


# -- the service tier, which stands beside the counts ------------------------------------------------------------------

COUNTED = {"prompt_tokens": 5, "completion_tokens": 7}


def everywhere(member: str, place: str) -> list[Usage | None]:
    """The usage that each reader finds in an answer with *member*, the usage in its *place*."""
    usage = json.dumps({"usage": COUNTED})
    chunk = {
        "usage": f'{{{member}"id":"i","choices":[],{usage[1:]}',
        "x_groq": f'{{{member}"choices":[],"x_groq":{usage}}}',
        "choice": f'{{{member}"choices":[{{"index":0,"delta":{{}},{usage[1:]}]}}',
    }[place].encode()
    scanner, event = ChunkScanner("openai", usage=True), b"data: " + chunk + b"\n\n"
    assert scanner.feed(event) == event
    [frame] = ChunkReader("openai", "chat").feed(event)
    read = [each.usage for each in frame.events if isinstance(each, UsageReported)]
    return [usage_in(decode_outline(chunk)), scanner.usage, *read]


@pytest.mark.parametrize("place", ["usage", "x_groq", "choice"])
@pytest.mark.parametrize(
    ("member", "tier"),
    [
        pytest.param("", None, id="none told"),
        pytest.param('"service_tier":"priority",', "priority", id="told"),
        pytest.param('"service_tier":"on_demand",', "on_demand", id="Groq's word"),
        pytest.param('"service_tier":null,', None, id="null"),
        pytest.param('"service_tier":"",', None, id="empty"),
        pytest.param('"service_tier":"a b",', None, id="no word"),
        pytest.param(f'"service_tier":"{"x" * 65}",', None, id="too long"),
    ],
)
def test_the_service_tier_is_read_from_where_the_usage_stands(member: str, tier: str | None, place: str) -> None:
    assert everywhere(member, place) == [Usage(5, 7, service_tier=tier)] * 3


@pytest.mark.parametrize("tier", [b"7", b"{}", b'["flex"]', b"true", b'"\xff"'])
def test_a_service_tier_that_is_no_text_costs_the_usage_nothing(tier: bytes) -> None:
    chunk = b'{"choices":[],"service_tier":' + tier + b',"usage":{"prompt_tokens":5,"completion_tokens":7}}'

    scanner = ChunkScanner("openai", usage=True)
    scanner.feed(b"data: " + chunk + b"\n\n")

    assert usage_in(decode_outline(chunk)) == scanner.usage == Usage(5, 7)


def test_a_model_that_is_no_text_breaks_nothing() -> None:
    chunk = b'{"choices":[],"model":"\xff","usage":{"prompt_tokens":5,"completion_tokens":7}}'

    scanner = ChunkScanner("openai", usage=True)
    out = scanner.feed(b"data: " + chunk + b"\n\n")

    assert (out, scanner.usage) == (b"data: " + chunk + b"\n\n", Usage(5, 7))
    assert model_in(decode_outline(chunk)) is None
