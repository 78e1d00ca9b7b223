"""What is quick for the usual answer finds what a careful look does, and leaves the unusual to that."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core.dialect import ReplyHead
from llmproxy_core.errors import UpstreamError
from llmproxy_core.usage import Usage
from llmproxy_core.wire import MOST_TOKENS
from llmproxy_openai import facts, read_usage
from llmproxy_openai.usage import _read_odd

ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, False, -1, 2.5, 1e300, MOST_TOKENS, MOST_TOKENS + 1, 10**30, "3", "", [], {}, "\ud800"]
)
COUNT = st.integers(0, 9) | ODD
ASKED = st.dictionaries(st.sampled_from(["cached_tokens", "cache_write_tokens", "audio_tokens"]), COUNT)
GIVEN = st.dictionaries(st.sampled_from(["reasoning_tokens", "audio_tokens"]), COUNT)
USAGE = st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": COUNT,
        "completion_tokens": COUNT,
        "total_tokens": COUNT,
        "prompt_cache_hit_tokens": COUNT,
        "num_cached_tokens": COUNT,
        "prompt_tokens_details": ASKED | ODD,
        "completion_tokens_details": GIVEN | ODD,
    },
)
CHOICE = st.fixed_dictionaries(
    {},
    optional={
        "finish_reason": st.sampled_from(["stop", "length", ""]) | ODD,
        "usage": USAGE | ODD,
        "message": st.just({"content": 'Say "usage": {'}),
    },
)
ANSWER = st.fixed_dictionaries(
    {},
    optional={
        "id": st.just("c1") | ODD,
        "model": st.just("m") | ODD,
        "object": st.sampled_from(["chat.completion", "error"]) | ODD,
        "service_tier": st.sampled_from(["default", "no word"]) | ODD,
        "usage": USAGE | ODD,
        "x_groq": st.just({"usage": {"prompt_tokens": 4}}) | ODD,
        "choices": st.lists(CHOICE, max_size=2) | ODD,
        "error": st.sampled_from(["bad", {"message": "bad"}]) | ODD,
    },
)


@given(USAGE, st.sampled_from([None, "flex", "no word", ""]))
def test_usage_is_read_the_same_quickly_and_carefully(usage: dict[str, Any], tier: str | None) -> None:
    text = json.dumps(usage).encode()

    assert read_usage(text, tier) == _read_odd(text, tier)


@given(ANSWER)
def test_an_answer_is_scanned_the_same_quickly_and_carefully(answer: dict[str, Any]) -> None:
    body = json.dumps(answer).encode()

    carefully = _told(lambda: facts._scan_unusual("openai", body, has_output=True))

    assert _told(lambda: facts.scan_reply("openai", body)) == carefully


def _told(scan: Callable[[], ReplyHead]) -> tuple[object, ...]:
    try:
        return (scan(),)
    except UpstreamError as error:
        return type(error), error.message, error.code


def test_the_usual_answer_needs_no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(facts, "decode_outline")
    body = {
        "id": "c1",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop", "logprobs": None}],
        "usage": {
            "prompt_tokens": 9,
            "completion_tokens": 3,
            "total_tokens": 12,
            "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
        "service_tier": "default",
    }

    head = facts.scan_reply("openai", json.dumps(body).encode())

    assert head == ReplyHead(Usage(9, 3, 4, reasoning_tokens=2, service_tier="default"), "m", ("stop",), "c1")
