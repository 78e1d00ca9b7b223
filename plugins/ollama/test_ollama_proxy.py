"""Real calls: clients of OpenAI's protocol in front of an Ollama server, and clients of Ollama's in front of others."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import llmproxy_ollama
import openai
import pytest

from llmproxy_core import End as Ended
from tests.proxy import Proxy, openai_at
from tests.script import Chunk, Cut, End, Head, Script, Step
from tests.upstream import Upstream, chat_chunk, completion, error, reply, stream, usage_chunk

LINES = {"content-type": "application/x-ndjson"}
ASKED: Any = {"model": "qwen3", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}
HEAD = {"model": "qwen3", "created_at": "2025-10-26T17:15:24.097767Z"}
LAST = {"done": True, "done_reason": "stop", "prompt_eval_count": 26, "eval_count": 3}
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]


def line(message: dict[str, object], **members: object) -> bytes:
    said = {"role": "assistant", "content": "", **message}
    return json.dumps(HEAD | {"message": said, "done": False} | members).encode() + b"\n"


def lines(*pieces: bytes, end: Step | None = None) -> list[Step]:
    return [Head(200, LINES), *map(Chunk, pieces), end or End()]


def whole(message: dict[str, object]) -> list[Step]:
    return reply(HEAD | {"message": {"role": "assistant", "content": "", **message}} | LAST)


def ollama_at(upstream: Upstream, **llm: object) -> dict[str, Any]:
    return {
        "llm": {"local": {"provider": "ollama", "base_url": upstream.url, **llm}},
        "route": [{"path_prefix": "/", "target_llm": "local"}],
    }


@asynccontextmanager
async def served(script: Script, **llm: object) -> AsyncIterator[tuple[Proxy, Upstream]]:
    """The proxy in front of an Ollama server that plays *script*."""
    async with (
        Upstream(script) as upstream,
        Proxy(ollama_at(upstream, **llm), plugins=[llmproxy_ollama]) as proxy,
    ):
        yield proxy, upstream


@asynccontextmanager
async def asking(proxy: Proxy) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=proxy.base_url, api_key="the caller's", max_retries=0) as sdk:
        yield sdk


async def _drain(values: AsyncIterator[object]) -> None:
    async for _ in values:
        pass


async def sent(upstream: Upstream) -> Any:
    received = await upstream.received()
    return received.target, json.loads(received.body or b"null")


# -- OpenAI's clients ------------------------------------------------------------------------------------------


async def test_an_openai_client_is_answered() -> None:
    script = whole({"content": "Light scatters.", "thinking": "Rayleigh"})

    async with served(script) as (proxy, upstream), asking(proxy) as client:
        answer = await client.chat.completions.create(
            **ASKED, max_tokens=20, temperature=0.5, seed=7, stop="END", reasoning_effort="low"
        )

        target, body = await sent(upstream)
        assert target == "/api/chat"
        assert (body["stream"], body["think"]) == (False, "low")
        assert body["options"] == {"num_predict": 20, "temperature": 0.5, "seed": 7, "stop": ["END"]}
        assert answer.choices[0].message.content == "Light scatters."
        assert answer.choices[0].finish_reason == "stop"
        assert answer.created == 1_761_498_924
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (26, 3)
        assert (await upstream.received()).header("authorization") is None


@pytest.mark.parametrize("size", [1, 7, 1_000])
async def test_an_openai_client_gets_a_stream(size: int) -> None:
    said = line({"thinking": "Hm"}) + line({"content": "Light "}) + line({"content": "scatters 🚲."}) + line({}, **LAST)
    pieces = [said[at : at + size] for at in range(0, len(said), size)]

    async with served(lines(*pieces)) as (proxy, upstream), asking(proxy) as client:
        chunks = [chunk async for chunk in await client.chat.completions.create(**ASKED, stream=True)]

        assert (await sent(upstream))[1]["stream"] is True
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        finishes = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
        assert (text, finishes) == ("Light scatters 🚲.", ["stop"])
        outcome = await proxy.outcome()
        assert outcome.end is Ended.COMPLETED
        assert outcome.usage is not None
        assert (outcome.usage.input_tokens, outcome.usage.output_tokens) == (26, 3)


@pytest.mark.parametrize("streams", [True, False])
async def test_an_openai_client_calls_tools(streams: bool) -> None:
    calls = [
        {"function": {"name": "weather", "arguments": {"city": "Köln"}}},
        {"function": {"name": "weather", "arguments": {}}},
    ]
    script = lines(line({"tool_calls": calls}), line({}, **LAST)) if streams else whole({"tool_calls": calls})

    async with served(script) as (proxy, upstream), asking(proxy) as client:
        told: dict[str, str] = {}
        if streams:
            finish = None
            async for chunk in await client.chat.completions.create(**ASKED, tools=TOOLS, stream=True):
                finish = (chunk.choices[0].finish_reason if chunk.choices else None) or finish
                for call in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
                    assert call.function is not None
                    told[str(call.index)] = told.get(str(call.index), "") + (call.function.arguments or "")
        else:
            answer = await client.chat.completions.create(**ASKED, tools=TOOLS)
            finish = answer.choices[0].finish_reason
            made = [call for call in answer.choices[0].message.tool_calls or [] if call.type == "function"]
            told = {str(index): call.function.arguments for index, call in enumerate(made)}
            assert len({call.id for call in made}) == 2

        assert finish == "tool_calls"
        assert [json.loads(told[index]) for index in ("0", "1")] == [{"city": "Köln"}, {}]
        assert (await sent(upstream))[1]["tools"] == TOOLS


@pytest.mark.parametrize("streams", [False, True])
async def test_a_call_of_a_tool_that_takes_a_text_is_the_clients_own(streams: bool) -> None:
    function = {"name": "llmproxy_text_patch", "arguments": {"text": "*** Begin"}}
    message: dict[str, object] = {"tool_calls": [{"id": "c1", "function": function}]}
    script = lines(line(message), line({}, **LAST)) if streams else whole(message)
    async with served(script) as (proxy, _):
        _, _, body = await post(
            proxy,
            "/v1/chat/completions",
            ASKED | {"stream": streams, "tools": [{"type": "custom", "custom": {"name": "patch"}}]},
        )

    if not streams:
        call = json.loads(body)["choices"][0]["message"]["tool_calls"][0]
        assert call == {"id": "c1", "type": "custom", "custom": {"name": "patch", "input": "*** Begin"}}
        return
    chunks = [json.loads(each.removeprefix(b"data: ")) for each in body.split(b"\n\n") if each.startswith(b"data: {")]
    pieces = [call["custom"] for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert pieces == [{"name": "patch", "input": ""}, {"input": "*** Begin"}]


async def test_results_go_back_with_the_names_of_their_tools() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Köln"}'}}
    history: Any = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Rain"},
    ]

    async with served(whole({"content": "It rains."})) as (proxy, upstream), asking(proxy) as client:
        await client.chat.completions.create(model="qwen3", messages=history, tools=TOOLS)

        messages = (await sent(upstream))[1]["messages"]
        assert messages[1]["tool_calls"] == [
            {"id": "call_1", "function": {"name": "weather", "arguments": {"city": "Köln"}}}
        ]
        assert messages[2] == {"role": "tool", "content": "Rain", "tool_name": "weather", "tool_call_id": "call_1"}


async def test_what_ollama_cannot_say_is_refused_by_its_name() -> None:
    async with served(whole({})) as (proxy, upstream), asking(proxy) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(**ASKED, tools=TOOLS, tool_choice="required")

        assert refused.value.param == "tool_choice"
        assert not upstream.requests


async def test_an_error_keeps_its_status_and_message() -> None:
    script = reply({"error": "model 'qwen3' not found"}, 404)

    async with served(script) as (proxy, _), asking(proxy) as client:
        with pytest.raises(openai.NotFoundError, match="model 'qwen3' not found"):
            await client.chat.completions.create(**ASKED)


async def test_an_error_amid_a_stream_reaches_the_client() -> None:
    script = lines(line({"content": "Light "}), b'{"error":"the runner has stopped"}\n')

    async with served(script) as (proxy, _), asking(proxy) as client:
        chunks = await client.chat.completions.create(**ASKED, stream=True)
        first = await anext(chunks)
        with pytest.raises(openai.APIError, match="the runner has stopped"):
            await _drain(chunks)

        assert first.choices[0].delta.content in ("", "Light ")
        assert (await proxy.outcome()).end is Ended.FAILED


@pytest.mark.parametrize("end", [End(), Cut()], ids=["the body ends", "the connection ends"])
async def test_a_stream_without_its_last_line_is_no_answer(end: Step) -> None:
    script = lines(line({"content": "Light "}), line({"content": "scatters"}), b'{"model":"qwen3","do', end=end)

    async with served(script) as (proxy, _), asking(proxy) as client:
        with pytest.raises(openai.APIError):
            await _drain(await client.chat.completions.create(**ASKED, stream=True))

        assert (await proxy.outcome()).end is Ended.FAILED


async def test_embeddings_and_the_list_of_models() -> None:
    async with served(reply({})) as (proxy, upstream), asking(proxy) as client:
        upstream.then(
            reply({"model": "nomic", "embeddings": [[0.5, -0.25], [1.0, 0.0]], "prompt_eval_count": 8}),
            reply({"models": [{"name": "qwen3:latest", "model": "qwen3:latest", "modified_at": HEAD["created_at"]}]}),
        )
        vectors = await client.embeddings.create(model="nomic", input=["a", "b"], encoding_format="float")
        models = await client.models.list()

        assert [each.embedding for each in vectors.data] == [[0.5, -0.25], [1.0, 0.0]]
        assert vectors.usage.prompt_tokens == 8
        assert [model.id for model in models.data] == ["qwen3:latest"]
        assert [it.target for it in upstream.requests] == ["/api/embed", "/api/tags"]
        assert json.loads(upstream.requests[0].body) == {"model": "nomic", "input": ["a", "b"]}


# -- Ollama's clients ------------------------------------------------------------------------------------------


async def post(proxy: Proxy, path: str, body: object) -> tuple[int, str, bytes]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(proxy.url + path, data=data, headers=headers) as answer,
    ):
        return answer.status, answer.content_type, await answer.read()


async def test_what_passes_between_ollamas_keeps_its_bytes() -> None:
    said = [
        line({"content": "Light "}, strange=1.0),
        line({"content": "scatters."}),
        line({}, **LAST, total_duration=5),
    ]
    body = b'{"model": "qwen3",  "options": {"num_ctx": 8192}, "messages": [{"role": "user", "content": "Hi"}]}'

    async with served(lines(*said)) as (proxy, upstream):
        answer = await post(proxy, "/api/chat", body)

        assert answer == (200, "application/x-ndjson", b"".join(said))
        assert (await upstream.received()).body == body
        usage = (await proxy.outcome()).usage
        assert usage is not None
        assert usage.output_tokens == 3


async def test_each_line_names_the_model_that_was_asked_for() -> None:
    said = [line({"content": "Light "}), line({"content": "scatters."}), line({}, **LAST)]

    async with served(lines(*said), models={"sky": "qwen3"}) as (proxy, _):
        _, _, body = await post(proxy, "/api/chat", ASKED | {"model": "sky"})

        assert body == b"".join(said).replace(b"qwen3", b"sky")


async def test_what_else_ollama_serves_passes_as_it_is() -> None:
    async with Upstream(reply({"license": "MIT"})) as upstream:
        mapping = ollama_at(upstream)
        mapping["route"] = [{"path_prefix": "/house", "target_llm": "local", "operations": ["chat", "opaque"]}]
        async with Proxy(mapping, plugins=[llmproxy_ollama]) as proxy:
            status, _, body = await post(proxy, "/house/api/show", {"model": "qwen3"})

            assert (status, json.loads(body)) == (200, {"license": "MIT"})
            assert (await upstream.received()).target == "/api/show"


@asynccontextmanager
async def served_by_openai(script: Script) -> AsyncIterator[tuple[Proxy, Upstream]]:
    async with Upstream(script) as upstream:
        mapping = openai_at(upstream.base_url, route={"path_prefix": "/"})
        async with Proxy(mapping, plugins=[llmproxy_ollama]) as proxy:
            yield proxy, upstream


async def test_an_ollama_client_is_answered_by_openai() -> None:
    asked = ASKED | {
        "stream": False,
        "keep_alive": "5m",
        "options": {"num_predict": 20, "num_ctx": 4096},
        "think": False,
    }

    async with served_by_openai(reply(completion("Light scatters."))) as (proxy, upstream):
        status, kind, body = await post(proxy, "/api/chat", asked | {"format": {"type": "object"}, "tools": TOOLS})

        target, received = await sent(upstream)
        assert target == "/v1/chat/completions"
        assert received["response_format"]["json_schema"]["schema"] == {"type": "object"}
        assert received["tools"][0]["function"]["name"] == "weather"
        assert 20 in (received.get("max_tokens"), received.get("max_completion_tokens"))
        assert (status, kind) == (200, "application/json")
        told = json.loads(body)
        assert told["message"] == {"role": "assistant", "content": "Light scatters."}
        assert (told["done"], told["done_reason"]) == (True, "stop")
        assert (told["prompt_eval_count"], told["eval_count"]) == (9, 3)
        assert told["created_at"] == "2023-11-14T22:13:20Z"


async def test_probabilities_of_another_kind_are_left_out() -> None:
    """Servers that are compatible with OpenAI's protocol send lists, too."""
    answer: Any = completion("Light scatters.")
    answer["choices"][0]["logprobs"] = []

    async with served_by_openai(reply(answer)) as (proxy, _):
        status, _, body = await post(proxy, "/api/chat", ASKED | {"stream": False})

    assert (status, json.loads(body)["message"]["content"]) == (200, "Light scatters.")
    assert "logprobs" not in json.loads(body)


async def test_an_ollama_client_that_says_nothing_of_it_gets_a_stream() -> None:
    script = stream(chat_chunk("Light "), chat_chunk("scatters.", finish="stop"), usage_chunk())

    async with served_by_openai(script) as (proxy, upstream):
        status, kind, body = await post(proxy, "/api/chat", ASKED)

        assert (await sent(upstream))[1]["stream"] is True
        assert (status, kind) == (200, "application/x-ndjson")
        told = [json.loads(each) for each in body.splitlines()]
        assert [each["message"]["content"] for each in told] == ["Light ", "scatters.", ""]
        assert [each["done"] for each in told] == [False, False, True]
        assert (told[-1]["prompt_eval_count"], told[-1]["eval_count"]) == (9, 3)


async def test_an_ollama_client_gets_calls_whole() -> None:
    first = chat_chunk(None)
    deltas = [
        {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":\n'}},
        {"index": 0, "function": {"arguments": ' "Köln"}'}},
    ]
    pieces = [
        {**first, "choices": [{"index": 0, "delta": {"tool_calls": [it]}, "finish_reason": None}]} for it in deltas
    ]
    script = stream(*pieces, chat_chunk(None, finish="tool_calls"), usage_chunk())

    async with served_by_openai(script) as (proxy, _):
        _, _, body = await post(proxy, "/api/chat", ASKED | {"tools": TOOLS})

        told = [json.loads(each) for each in body.splitlines()]
        calls = [call for each in told for call in each["message"].get("tool_calls", [])]
        assert calls == [{"id": "call_1", "function": {"name": "weather", "arguments": {"city": "Köln"}}}]


async def test_calls_without_ids_are_paired_with_their_results_by_name() -> None:
    calls = [{"function": {"name": name, "arguments": {"index": 0}}} for name in ("weather", "time", "weather")]
    results = [{"role": "tool", "tool_name": name, "content": name} for name in ("time", "weather", "weather")]
    history = [*ASKED["messages"], {"role": "assistant", "content": "", "tool_calls": calls}, *results]

    async with served_by_openai(reply(completion("So."))) as (proxy, upstream):
        status, _, _ = await post(proxy, "/api/chat", {"model": "gpt-4o", "stream": False, "messages": history})

        assert status == 200
        messages = (await sent(upstream))[1]["messages"]
        ids = [call["id"] for call in messages[1]["tool_calls"]]
        assert len(set(ids)) == 3
        assert [message["tool_call_id"] for message in messages[2:]] == [ids[1], ids[0], ids[2]]


async def test_what_openai_cannot_say_is_refused_in_the_words_of_ollama() -> None:
    async with served_by_openai(reply(completion(""))) as (proxy, upstream):
        status, _, body = await post(proxy, "/api/chat", ASKED | {"options": {"top_k": 3}})

        assert status == 400
        assert list(json.loads(body)) == ["error"]
        assert "options.top_k" in json.loads(body)["error"]
        assert not upstream.requests


async def test_an_error_of_openai_is_told_in_the_words_of_ollama() -> None:
    for upstreams, ours in ((429, 429), (529, 503)):
        async with served_by_openai(reply(error("Slow down"), upstreams)) as (proxy, _):
            status, _, body = await post(proxy, "/api/chat", ASKED)

            assert (status, json.loads(body)) == (ours, {"error": "Slow down"})


async def test_a_cut_of_openai_ends_the_stream_with_an_error() -> None:
    script = stream(chat_chunk("Light "), done=False)

    async with served_by_openai(script) as (proxy, _), aiohttp.ClientSession() as session:
        async with session.post(f"{proxy.url}/api/chat", json=ASKED) as answer:
            told = [json.loads(await answer.content.readline()) for _ in range(2)]
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.content.read()

        assert told[0]["message"]["content"] == "Light "
        assert list(told[1]) == ["error"]
        assert (await proxy.outcome()).end is Ended.FAILED


async def test_an_ollama_client_lists_and_embeds_with_openai() -> None:
    vector = {"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}
    embedded = {"object": "list", "data": [vector], "model": "m", "usage": {"prompt_tokens": 4, "total_tokens": 4}}

    async with served_by_openai(reply({})) as (proxy, upstream), aiohttp.ClientSession() as session:
        upstream.then(reply(embedded), reply({"object": "list", "data": [{"id": "gpt-4o", "object": "model"}]}))
        _, _, body = await post(proxy, "/api/embed", {"model": "m", "input": "a", "keep_alive": 0})
        async with session.get(f"{proxy.url}/api/tags") as answer:
            listed = await answer.json()

        assert json.loads(body) == {"model": "m", "embeddings": [[0.5, -0.25]], "prompt_eval_count": 4}
        assert [model["name"] for model in listed["models"]] == ["gpt-4o"]
