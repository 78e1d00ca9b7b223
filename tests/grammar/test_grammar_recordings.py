"""What providers really sent is right by the looser rules, and nothing that is missing from it goes unseen."""

from itertools import pairwise

import pytest

from llmproxy_core.testing.grammar import check_stream
from tests.grammar.events import Event, cut, drop, read, renumber, swap, twice, written
from tests.recordings import Recording, recordings

STREAMS = [it for it in recordings() if it.grammar is not None]
EVENTS = [it for it in STREAMS if it.is_event_stream]
WHOLE = [it for it in EVENTS if not it.fails]


def grammar(it: Recording) -> str:
    assert it.grammar is not None
    return it.grammar


@pytest.mark.parametrize("it", STREAMS, ids=str)
def test_what_providers_sent_is_right(it: Recording) -> None:
    assert check_stream(grammar(it), it.response_body, failed=it.fails, strict=False) == []


@pytest.mark.parametrize("it", STREAMS, ids=str)
def test_a_failed_stream_is_not_a_good_one_nor_the_other_way_round(it: Recording) -> None:
    assert check_stream(grammar(it), it.response_body, failed=not it.fails, strict=False) != []


def test_most_recordings_keep_to_the_strict_rules() -> None:
    """The strict rules are those of the providers; the exceptions are old versions and built-in tools."""
    strict = {str(it) for it in STREAMS if check_stream(grammar(it), it.response_body, failed=it.fails) == []}

    assert {str(it) for it in STREAMS} - strict == {
        "anthropic/messages-stream-anthropic-code-execution-tool-stream-0",
        "anthropic/messages-stream-prompt-caching-anthropic-async-stream-legacy-1",
        "anthropic/messages-stream-prompt-caching-anthropic-stream-legacy-0",
        "anthropic/messages-stream-retry-chat-model-acomplete-anthropic-1",
        "anthropic/messages-stream-tool-search-anthropic-native-streaming-0",
        "anthropic/messages-stream-vision-chatprompt-with-user-image-message-anthropic-0",
        "anthropic/messages-stream-web-search-tool-anthropic-streams-with-0",
        "compatible/chat-stream-groq-tool-use-failed-error-streaming-1",
        "compatible/chat-stream-openrouter-chat-model-complete-pydantic-openai-strict-0",
        "compatible/chat-stream-openrouter-chat-model-complete-seed-0",
        "gemini/chat-stream-openai-gemini-acomplete-return-true-output-types1-bool-0",
        "gemini/streamGenerate-stream-fixture-partial-function-args",
        "gemini/streamGenerate-stream-google-model-file-search-grounding-gemini-3-true-3",
        "openai/responses-stream-fixture-reasoning-encrypted-content",
        "openai/responses-stream-openai-responses-include-raw-annotations-streaming-1",
        "openai/responses-stream-openai-responses-model-file-search-tool-stream-3",
        "openai/responses-stream-openai-responses-model-web-search-tool-stream-0",
        "openai/responses-stream-openai-responses-streaming-usage-0",
    }


@pytest.mark.parametrize("it", WHOLE, ids=str)
def test_a_recording_cut_off_after_any_event_is_wrong(it: Recording) -> None:
    events = read(it.response_body)

    right = [at for at in range(len(events)) if not check_stream(grammar(it), written(events, cut(at)), strict=False)]

    assert right == []


@pytest.mark.parametrize("it", WHOLE, ids=str)
def test_no_event_of_a_recording_is_missed_that_others_depend_on(it: Recording) -> None:
    events = read(it.response_body)

    unseen = [
        at
        for at, event in enumerate(events)
        if _is_needed(event) and not check_stream(grammar(it), written(events, drop(at)), strict=False)
    ]

    assert unseen == []


@pytest.mark.parametrize("it", WHOLE, ids=str)
def test_no_event_of_a_recording_comes_twice_unseen(it: Recording) -> None:
    events = read(it.response_body)

    unseen = [
        at
        for at, event in enumerate(events)
        if _is_single(event) and not check_stream(grammar(it), written(events, twice(at)), strict=False)
    ]

    assert unseen == []


@pytest.mark.parametrize("it", recordings(dialect="openai-responses", stream=True, fails=False), ids=str)
def test_the_events_of_a_response_cannot_change_places_even_with_new_numbers(it: Recording) -> None:
    events = read(it.response_body)
    different = [
        at for at, (one, other) in enumerate(pairwise(events)) if one.name != other.name or "delta" not in str(one.name)
    ]

    unseen = [
        at
        for at in different
        if not check_stream("openai-responses", written(events, swap(at, at + 1), renumber), strict=False)
    ]

    assert [str(events[at].name) for at in unseen if not _is_of_no_order(events, at)] == []


def _is_needed(event: Event) -> bool:
    """Whether a stream without it cannot be right: nothing says that a text was longer, except in a response."""
    if event.value == "[DONE]":
        return True
    kind = str(event.value.get("type"))
    if kind.startswith("response."):
        return True
    return kind.startswith(("message_", "content_block_st"))


def _is_single(event: Event) -> bool:
    """Whether it may come only once in a stream; Anthropic reserves the right to more than one message_delta."""
    if event.name == "message_delta":
        return False
    return _is_needed(event) or (isinstance(event.value, dict) and bool(event.value.get("usage")))


def _is_of_no_order(events: list[Event], at: int) -> bool:
    """Annotations stand between deltas, and the steps of built-in tools among themselves."""
    pair = {str(event.name) for event in events[at : at + 2]}
    return bool(pair & {"response.output_text.annotation.added"}) or all("_call." in name for name in pair)
