"""The unmodified openai SDK, newest and newest of the previous major, is a client like any other."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import llmproxy_gemini
import openai
import pytest

from llmproxy_server import demo
from tests.proxy import Proxy, openai_at
from tests.recordings import Recording, openai_recordings, recording
from tests.upstream import Chunk, Cut, End, Head, Step, Upstream, replay

ASK: Any = [{"role": "user", "content": "Say hello"}]
"""What is asked does not matter: the upstream plays a recording."""

STREAMS = [it for it in openai_recordings(protocol="chat") if it.stream and it.response_status == 200]
PLAIN = [it for it in openai_recordings(protocol="chat") if not it.stream and it.response_status == 200]
ERRORS = [
    it
    for it in openai_recordings(protocol="chat")
    if it.response_status >= 400 and it.response_status not in (401, 402, 403)
]


def test_the_version_of_the_sdk_is_said(record_property: Callable[[str, object], None]) -> None:
    record_property("openai", openai.__version__)
    print("openai SDK", openai.__version__)  # noqa: T201 - shown with -s, and in the report
    assert int(openai.__version__.split(".")[0]) >= 2


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as running:
        yield running


@pytest.fixture
async def proxy(upstream: Upstream) -> AsyncIterator[Proxy]:
    mapping = {
        "llm": {"fake": {"provider": "openai", "base_url": upstream.base_url}, "demo": {"provider": "demo"}},
        "route": [
            {"path_prefix": "/v1", "target_llm": "fake"},
            {"path_prefix": "/demo", "target_llm": "demo"},
        ],
    }
    async with Proxy(mapping, plugins=[demo]) as running:
        yield running


@pytest.fixture
async def client(proxy: Proxy) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="the caller's", max_retries=0) as sdk:
        yield sdk


@pytest.mark.parametrize("recording", STREAMS, ids=str)
async def test_the_sdk_reads_a_recorded_stream_as_it_was_sent(
    recording: Recording, upstream: Upstream, client: openai.AsyncOpenAI
) -> None:
    upstream.then(replay(recording))

    stream = await client.chat.completions.create(
        model="m",
        messages=ASK,
        stream=True,
        stream_options={"include_usage": True},
    )
    read = [chunk.to_dict(mode="json") async for chunk in stream]

    assert [it["choices"] for it in read] == [it["choices"] for it in _sent(recording)]


def _sent(recording: Recording) -> list[dict[str, object]]:
    lines = recording.response_body.decode().splitlines()
    data = [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]
    return [json.loads(text) for text in data if text != "[DONE]"]


@pytest.mark.parametrize("recording", PLAIN, ids=str)
async def test_the_sdk_reads_a_recorded_answer_as_it_was_sent(
    recording: Recording, upstream: Upstream, client: openai.AsyncOpenAI
) -> None:
    upstream.then(replay(recording))

    answer = await client.chat.completions.create(model="m", messages=ASK)

    assert answer.to_dict(mode="json")["choices"] == json.loads(recording.response_body)["choices"]


@pytest.mark.parametrize("recording", ERRORS, ids=str)
async def test_the_sdk_raises_the_providers_error(
    recording: Recording, upstream: Upstream, client: openai.AsyncOpenAI
) -> None:
    upstream.then(replay(recording))

    with pytest.raises(openai.APIStatusError) as raised:
        await client.chat.completions.create(model="m", messages=ASK)

    assert raised.value.status_code == recording.response_status
    assert raised.value.body == json.loads(recording.response_body)["error"]
    assert raised.value.request_id


async def test_our_refused_key_is_the_operators_trouble_not_the_callers(
    upstream: Upstream, client: openai.AsyncOpenAI
) -> None:
    upstream.then(replay(next(it for it in openai_recordings(protocol="chat") if it.response_status == 401)))

    with pytest.raises(openai.InternalServerError) as raised:
        await client.chat.completions.create(model="m", messages=ASK)

    assert raised.value.status_code == 502
    assert "sk-" not in str(raised.value)


CUT = recording("chat-stream-chat-streaming-detailed-usage-0").response_body
PLACES = range(0, CUT.index(b"data: [DONE]") + len(b"data: [DON"), 97)


@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize("how", [Cut(), End()], ids=["cut", "ended"])
async def test_the_sdk_raises_wherever_a_stream_breaks_off(
    at: int, how: Step, upstream: Upstream, client: openai.AsyncOpenAI
) -> None:
    """`End` is a proper end of the HTTP message, but without `[DONE]`: without a proxy the SDK takes it for success."""
    begun = [Chunk(CUT[:at])] if at else []
    upstream.then([Head(200, [("content-type", "text/event-stream")]), *begun, how])

    with pytest.raises(openai.APIError):
        await _read_stream(client)


async def _read_stream(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="m", messages=ASK, stream=True)
    async for _ in stream:
        pass


async def test_the_sdk_gathers_all_sources_of_a_search_that_another_provider_made() -> None:
    """Of several lists in a stream it takes the first, and raises at the next."""
    searched = recording("gemini/streamGenerate-stream-google-model-web-search-tool-stream-0")
    async with Upstream(replay(searched)) as upstream:
        llm = {"provider": "gemini", "base_url": upstream.base_url}
        route = {"path_prefix": "/v1", "target_llm": "gemini"}
        async with (
            Proxy({"llm": {"gemini": llm}, "route": [route]}, plugins=[llmproxy_gemini]) as proxy,
            openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="the caller's", max_retries=0) as sdk,
            sdk.chat.completions.stream(model="gemini-2.5-flash", messages=ASK) as stream,
        ):
            completion = await stream.get_final_completion()

    message = completion.choices[0].message
    assert message.content is not None
    assert message.annotations is not None
    assert len(message.annotations) > 1
    for each in message.annotations:
        assert 0 <= each.url_citation.start_index < each.url_citation.end_index <= len(message.content)


async def test_the_sdk_gets_embeddings(upstream: Upstream, client: openai.AsyncOpenAI) -> None:
    recording = next(it for it in openai_recordings(protocol="embeddings") if it.response_status == 200)
    upstream.then(replay(recording))

    answer = await client.embeddings.create(model="m", input="hello")

    assert answer.usage.total_tokens == json.loads(recording.response_body)["usage"]["total_tokens"]


async def test_the_sdk_lists_and_finds_configured_models(upstream: Upstream) -> None:
    """It writes the slash of a name as %2F, which a route must allow."""
    mapping = openai_at(upstream.base_url, route={"encoded_slash": True}, models=["gpt-4o", "org/name"])
    async with (
        Proxy(mapping) as proxy,
        openai.AsyncOpenAI(base_url=proxy.base_url, api_key="any", max_retries=0) as sdk,
    ):
        listed = [model.id async for model in sdk.models.list()]
        found = await sdk.models.retrieve("org/name")
        with pytest.raises(openai.NotFoundError) as missing:
            await sdk.models.retrieve("another")

    assert listed == ["gpt-4o", "org/name"]
    assert found.id == "org/name"
    assert missing.value.code == "model_not_found"


COMPLETIONS = [it for it in openai_recordings(protocol="completions") if it.response_status == 200]


@pytest.mark.parametrize("recording", COMPLETIONS, ids=str)
async def test_the_sdk_reads_legacy_completions(
    recording: Recording, upstream: Upstream, client: openai.AsyncOpenAI
) -> None:
    upstream.then(replay(recording))
    asked: Any = json.loads(recording.request_body)

    answer = await client.completions.create(**asked)

    if recording.is_event_stream:
        read = [choice.text async for chunk in answer for choice in chunk.choices]
        assert read == [choice["text"] for chunk in _sent(recording) for choice in _choices(chunk)]
    else:
        assert answer.to_dict(mode="json")["choices"] == json.loads(recording.response_body)["choices"]


def _choices(chunk: dict[str, object]) -> list[Any]:
    choices = chunk["choices"]
    assert isinstance(choices, list)
    return choices


async def test_the_sdk_is_told_that_a_model_list_is_not_served(proxy: Proxy) -> None:
    async with openai.AsyncOpenAI(base_url=f"{proxy.url}/demo", api_key="any", max_retries=0) as sdk:
        with pytest.raises(openai.APIStatusError) as raised:
            await sdk.models.list()

    assert raised.value.status_code in (400, 404)


async def test_the_sdk_calls_a_tool_of_the_demo(proxy: Proxy) -> None:
    tool: Any = {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
    }

    async with openai.AsyncOpenAI(base_url=f"{proxy.url}/demo", api_key="any", max_retries=0) as sdk:
        answer = await sdk.chat.completions.create(
            model="demo",
            messages=ASK,
            tools=[tool],
            tool_choice="required",
        )

    calls: Any = answer.choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["weather"]
