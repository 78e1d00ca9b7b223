"""The demo LLM as a client of the OpenAI protocol meets it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import pytest

from llmproxy_core.chat import ChatRequest, Message, TextPart
from llmproxy_core.config import structure
from llmproxy_core.errors import (
    ConfigError,
    InternalError,
    ProxyError,
    RouteNotFound,
    Unsupported,
    UpstreamCut,
    UpstreamError,
    UpstreamTimeout,
)
from llmproxy_core.exchange import Exchange
from llmproxy_core.money import Money, Price
from llmproxy_core.outcome import End
from llmproxy_core.plugins import Registry
from llmproxy_core.relay import Flow, Whole, deliver
from llmproxy_core.request import Request, client_view
from llmproxy_core.response import Reply, Stream
from llmproxy_core.services import Services
from llmproxy_core.tasks import Tasks
from llmproxy_openai import plugin as openai
from llmproxy_server import demo
from llmproxy_server.demo import DemoConfig, DemoLLM
from llmproxy_server.demo_models import MODELS

pytestmark = pytest.mark.timeout(20)  # a test that waits for a minute's delay has failed

OPENAI = Registry.of(openai).dialects["openai"]
NOW_S = 1_700_000_000
HELLO = [{"role": "user", "content": "Say hello"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    running = Tasks()
    yield running
    await running.drain(1.0)


def none(_: object) -> NoReturn:
    raise AssertionError("the demo needs nothing of this")


class Desk:
    """Makes demo LLMs and calls."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._services = Services(llm=none, transport=none, tasks=tasks, dialects={"openai": OPENAI}, now=lambda: NOW_S)

    def llm(self, **keys: Any) -> DemoLLM:
        """One that does not delay, unless *keys* say so."""
        return DemoLLM(DemoConfig(name="demo", provider="demo", **{"delay_ms": 0, **keys}), self._services)

    def exchange(self, path: str = "/v1/chat/completions", **members: Any) -> Exchange:
        """The call of a client that sends *members* to *path*; by default it says hello to `demo`."""
        if path == "/v1/chat/completions":
            members = {"messages": HELLO, **members}
        api = OPENAI.locate(path)[0].api
        body = json.dumps({"model": "demo", **members}).encode()
        request = Request(operation=api.operation, dialect=OPENAI, api=api, path=path, body=body)
        return self.own_exchange(request, client=client_view(request))

    def own_exchange(self, request: Request, **keys: Any) -> Exchange:
        return Exchange(request, id="req-1", route="/v1", tasks=self._tasks, clock=time.monotonic, **keys)


@pytest.fixture
def desk(tasks: Tasks) -> Desk:
    return Desk(tasks)


async def answered(llm: DemoLLM, exchange: Exchange) -> dict[str, Any]:
    """The body of a plain answer, as the client gets it."""
    assert exchange.client is not None
    whole = await deliver(await llm.send(exchange), exchange.client)
    assert isinstance(whole, Whole)
    body: dict[str, Any] = json.loads(whole.body)
    return body


async def flow_of(llm: DemoLLM, exchange: Exchange) -> Flow:
    assert exchange.client is not None
    flow = await deliver(await llm.send(exchange), exchange.client)
    assert isinstance(flow, Flow)
    return flow


async def streamed(llm: DemoLLM, exchange: Exchange) -> list[str]:
    """The data of a stream's events, as the client gets them."""
    flow = await flow_of(llm, exchange)
    sent = b"".join([piece async for piece in flow.pieces()])
    flow.finish()
    return [event.removeprefix("data: ") for event in sent.decode().split("\n\n") if event]


# -- answers -------------------------------------------------------------------------------------------------------


async def test_a_plain_answer_is_a_chat_completion_whose_tokens_add_up(desk: Desk) -> None:
    body = await answered(desk.llm(), desk.exchange())

    usage = body["usage"]
    assert (body["object"], body["model"], body["created"]) == ("chat.completion", "demo", NOW_S)
    assert body["choices"][0]["finish_reason"] == "stop"
    assert "“Say hello”" in body["choices"][0]["message"]["content"]
    assert usage["prompt_tokens"] == 7  # 4 for the message, 3 for nine bytes
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_a_stream_comes_in_pieces_that_join_to_the_plain_answer(desk: Desk) -> None:
    plain = await answered(desk.llm(), desk.exchange())

    *events, done = await streamed(desk.llm(), desk.exchange(stream=True))

    chunks = [json.loads(event) for event in events]
    deltas = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks]
    assert done == "[DONE]"
    assert {chunk["id"] for chunk in chunks} == {plain["id"]}
    assert "".join(deltas) == plain["choices"][0]["message"]["content"]
    assert len([delta for delta in deltas if delta]) > 20


async def test_a_stream_reports_usage_as_the_plain_answer_does_to_a_client_that_asks(desk: Desk) -> None:
    plain = await answered(desk.llm(), desk.exchange())

    events = await streamed(desk.llm(), desk.exchange(stream=True, stream_options={"include_usage": True}))

    last = json.loads(events[-2])
    assert (last["choices"], last["usage"]) == ([], plain["usage"])


async def test_a_stream_keeps_its_usage_from_a_client_that_does_not_ask_but_not_from_us(desk: Desk) -> None:
    exchange = desk.exchange(stream=True)

    events = await streamed(desk.llm(), exchange)

    assert not any(json.loads(event).get("usage") for event in events[:-1])
    assert exchange.outcome is not None
    assert exchange.outcome.usage is not None
    assert exchange.outcome.usage.input_tokens == 7


@pytest.mark.parametrize("forced", ["required", {"type": "function", "function": {"name": "get_weather"}}])
async def test_a_forced_call_is_streamed_as_it_is_given_plain(desk: Desk, forced: object) -> None:
    asked: dict[str, Any] = {"tools": [WEATHER], "tool_choice": forced}
    plain = await desk.llm().send(desk.exchange(**asked))
    stream = await desk.llm().send(desk.exchange(stream=True, **asked))
    assert isinstance(stream, Stream)

    whole, joined = await plain.reply(), await stream.reply()

    assert json.loads(whole.choices[0].content[0].arguments) == {"city": "Say hello"}  # type: ignore[union-attr]
    assert joined.choices[0].content == whole.choices[0].content
    assert joined.usage == whole.usage
    assert stream.finish_words == ("tool_calls",)


async def test_a_forced_legacy_function_is_called_in_the_legacy_form(desk: Desk) -> None:
    exchange = desk.exchange(functions=[WEATHER["function"]], function_call={"name": "get_weather"})

    choice = (await answered(desk.llm(), exchange))["choices"][0]

    assert choice["message"]["function_call"]["name"] == "get_weather"
    assert choice["finish_reason"] == "function_call"


async def test_the_legacy_completions_are_answered_in_their_own_form(desk: Desk) -> None:
    plain = await answered(desk.llm(), desk.exchange("/v1/completions", prompt="Say hello"))

    *events, done = await streamed(desk.llm(), desk.exchange("/v1/completions", prompt="Say hello", stream=True))

    texts = [choice["text"] for event in events for choice in json.loads(event)["choices"]]
    assert plain["object"] == "text_completion"
    assert "".join(texts) == plain["choices"][0]["text"]
    assert done == "[DONE]"


async def test_embeddings_are_refused_in_so_many_words(desk: Desk) -> None:
    with pytest.raises(Unsupported, match="chat only, not embeddings"):
        await desk.llm().send(desk.exchange("/v1/embeddings", input="Say hello"))


# -- the mark ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["demo", "demo-large"])
async def test_every_answer_is_marked(desk: Desk, model: str, stream: bool) -> None:
    response = await desk.llm().send(desk.exchange(model=model, stream=stream))

    assert response.headers == [("x-llmproxy-demo", "true")]


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("gpt-4o", "gpt-4o"),
        ('a"b\\c\r\nx: y\u20ac', "a?b?c??x: y?"),
        ("m" * 100, "m" * 100),
        ("m" * 256, "m" * 97 + "..."),
    ],
    ids=["name", "hostile", "long", "too long"],
)
async def test_who_asked_for_a_real_model_is_told_so(desk: Desk, model: str, shown: str) -> None:
    response = await desk.llm().send(desk.exchange(model=model))

    assert response.headers == [
        (
            "x-llmproxy-demo",
            f'no provider key is configured; the built-in demo answered instead of "{shown}"',
        )
    ]


async def test_the_attempt_is_on_record(desk: Desk) -> None:
    exchange = desk.exchange(model="gpt-4o")

    await answered(desk.llm(), exchange)

    (attempt,) = exchange.attempts
    assert (attempt.llm, attempt.model, attempt.status, attempt.error) == ("demo", "gpt-4o", 200, None)


# -- faults --------------------------------------------------------------------------------------------------------


async def refusal_of(llm: DemoLLM, exchange: Exchange) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await llm.send(exchange)
    assert exchange.attempts[0].error is caught.value
    assert exchange.attempts[0].status == caught.value.status
    return caught.value


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("demo/error-429", 429, "rate_limit_exceeded"),
        ("demo/error-500", 500, "server_error"),
        ("demo/eror-500", 404, "model_not_found"),
    ],
)
async def test_an_error_has_the_form_of_the_clients_protocol(desk: Desk, model: str, status: int, code: str) -> None:
    error = await refusal_of(desk.llm(), desk.exchange(model=model))

    assert (error.status, error.code, error.retryable) == (status, code, status != 404)
    assert error.retry_after_s == (1.0 if status == 429 else None)
    assert error.headers == (("x-llmproxy-demo", "true"),)
    assert error.dialect == "openai"
    assert error.body is not None
    assert json.loads(error.body)["error"]["code"] == code
    assert json.loads(error.body)["error"]["message"] == error.message


async def test_an_unknown_name_is_answered_with_the_known_ones(desk: Desk) -> None:
    error = await refusal_of(desk.llm(), desk.exchange(model="demo/fast"))

    assert all(name in error.message for name in MODELS)


async def test_a_cut_stream_ends_in_the_middle_with_an_error_and_no_terminal_event(desk: Desk) -> None:
    whole = await streamed(desk.llm(), desk.exchange(stream=True))
    exchange = desk.exchange(model="demo/cut", stream=True)

    events = await streamed(desk.llm(), exchange)

    assert len(whole) // 3 < len(events) < len(whole)
    assert json.loads(events[-1])["error"]["code"] == "upstream_cut"
    assert exchange.outcome is not None
    assert exchange.outcome.end is End.FAILED


async def test_a_cut_plain_answer_is_an_error(desk: Desk) -> None:
    with pytest.raises(UpstreamCut):
        await desk.llm().send(desk.exchange(model="demo/cut"))


async def test_a_stalled_stream_fails_as_a_silent_upstream_does(desk: Desk) -> None:
    *events, error = await streamed(desk.llm(stall_s=0.05), desk.exchange(model="demo/stall", stream=True))

    assert 3 <= len(events) <= 4  # three pieces; the first may bring the role in an event of its own
    assert json.loads(error)["error"]["code"] == "upstream_timeout_idle"


@pytest.mark.parametrize("model", ["demo/stall", "demo/cut"])
async def test_even_the_shortest_stream_does_not_get_to_its_end(desk: Desk, model: str) -> None:
    *events, error = await streamed(desk.llm(stall_s=0.05), desk.exchange(model=model, stream=True, max_tokens=1))

    finishes = [choice["finish_reason"] for event in events for choice in json.loads(event)["choices"]]
    assert set(finishes) == {None}
    assert "error" in json.loads(error)


async def test_a_stalled_plain_answer_fails_too(desk: Desk) -> None:
    with pytest.raises(UpstreamTimeout) as caught:
        await desk.llm(stall_s=0.05).send(desk.exchange(model="demo/stall"))

    assert caught.value.code == "upstream_timeout_idle"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_slow_model_begins_late(desk: Desk, stream: bool) -> None:
    """An hour late: what comes within the twentieth of a second would not be late."""
    llm = desk.llm(slow_first_byte_s=3600)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await llm.send(desk.exchange(model="demo/slow", stream=stream))


async def test_a_slow_model_takes_ten_times_the_delay(desk: Desk) -> None:
    stream = await desk.llm(delay_ms=10, slow_first_byte_s=0).send(desk.exchange(model="demo/slow", stream=True))
    assert isinstance(stream, Stream)
    await stream.read()
    begun_s = time.monotonic()

    await stream.read()

    assert time.monotonic() - begun_s > 0.09  # 0.1 s less a timer's grain
    stream.exchange.finish(End.ABANDONED)


# -- the client goes away ------------------------------------------------------------------------------------------


async def test_a_waiting_stream_ends_at_once_when_the_exchange_does(desk: Desk) -> None:
    """The next piece would come after a minute, past the time-out of the test."""
    exchange = desk.exchange(stream=True)
    stream = await desk.llm(delay_ms=60_000).send(exchange)
    assert isinstance(stream, Stream)
    async with asyncio.TaskGroup() as group:
        await stream.read()
        reading = group.create_task(stream.read())
        await asyncio.sleep(0)  # the reader waits now

        exchange.finish(End.ABANDONED)

        assert await reading == b""
    assert stream.outcome is not None
    assert (stream.outcome.end, stream.outcome.model) == (End.ABANDONED, "demo")


class Taken:
    """A sink that tells when the first bytes have come."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended = False

    def feed(self, data: bytes) -> None:
        self.begun.set()

    def end(self, error: ProxyError | None) -> None:
        self.ended = True


async def test_a_pushed_stream_ends_at_once_when_the_exchange_does(desk: Desk, tasks: Tasks) -> None:
    exchange = desk.exchange(stream=True)
    stream = await desk.llm(delay_ms=60_000).send(exchange)
    assert isinstance(stream, Stream)
    sink = Taken()
    stream.attach(sink)
    await sink.begun.wait()

    exchange.finish(End.ABANDONED)
    await tasks.drain(5.0)

    assert not sink.ended


# -- calls of processors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_processors_own_question_is_answered(desk: Desk, stream: bool) -> None:
    chat = ChatRequest("demo", (Message("user", (TextPart("Say hello"),)),), stream=stream)

    async with desk.exchange().child(Request.of_chat(chat)) as child:
        reply = await (await desk.llm().send(child)).reply()

    assert "“Say hello”" in reply.text
    assert child.outcome is not None
    assert child.outcome.usage == reply.usage


async def test_a_background_question_is_answered_though_no_client_waits_for_it(desk: Desk) -> None:
    chat = ChatRequest("demo", (Message("user", (TextPart("Say hello"),)),))

    async with desk.exchange().detach(Request.of_chat(chat)) as background:
        reply = await (await desk.llm().send(background)).reply()

    assert "“Say hello”" in reply.text


async def test_without_any_dialect_the_demo_cannot_speak(tasks: Tasks) -> None:
    llm = DemoLLM(DemoConfig(name="demo", provider="demo"), Services(llm=none, transport=none, tasks=tasks))
    chat = ChatRequest("demo", (Message("user", (TextPart("Say hello"),)),))
    request = Request.of_chat(chat)
    nobodys = Exchange(request, id="req-1", route="/v1", tasks=tasks, clock=time.monotonic)

    with pytest.raises(InternalError, match="No registered dialect"):
        await llm.send(nobodys)


# -- configuration -------------------------------------------------------------------------------------------------


async def test_an_answer_costs_what_the_prices_say(desk: Desk) -> None:
    exchange = desk.exchange(n=2)
    price = Price(input=Money.usd("1").nanodollars, output=Money.usd("10").nanodollars)  # per million tokens
    response = await desk.llm(prices=(("other", Price(1, 1)), ("d*", price))).send(exchange)

    reply = await response.reply()

    assert reply.usage is not None
    assert response.outcome is not None
    assert response.outcome.cost == price.cost(reply.usage)


@pytest.mark.parametrize("model", ["demo", "unheard-of", None])
async def test_it_says_what_it_costs_and_that_is_nothing_unless_configured(desk: Desk, model: str | None) -> None:
    price = Price(1, 2)
    free, priced = desk.llm(), desk.llm(prices=(("demo", price),))

    assert [it and it.price for it in await free.prices(model)] == [Price(0, 0)]
    assert [it and it.price for it in await priced.prices(model)] == [price if model == "demo" else Price(0, 0)]


async def test_without_prices_an_answer_costs_nothing_rather_than_nobody_knows_what(desk: Desk) -> None:
    for stream in (False, True):
        response = await desk.llm().send(desk.exchange(stream=stream))

        await response.reply()

        assert response.outcome is not None
        assert response.outcome.cost == Money()


async def test_the_configured_names_decide_which_model_is_played(desk: Desk) -> None:
    llm = desk.llm(models=(("gpt-4o", "demo/cut"), ("demo", None)))

    assert (await answered(llm, desk.exchange()))["model"] == "demo"
    with pytest.raises(UpstreamCut):
        await llm.send(desk.exchange(model="gpt-4o"))
    with pytest.raises(RouteNotFound):
        await llm.send(desk.exchange(model="gpt-3"))


async def test_without_streaming_a_stream_is_answered_whole(desk: Desk) -> None:
    response = await desk.llm(supports_streaming=False).send(desk.exchange(stream=True))

    assert isinstance(response, Reply)


def test_the_plugin_registers_the_provider() -> None:
    registry = Registry.of(demo)

    assert not registry.broken
    assert registry.providers["demo"].config is DemoConfig


def test_a_configuration_with_every_key_is_read() -> None:
    table = {"provider": "demo", "delay_ms": 5, "slow_first_byte_s": 1, "stall_s": 0.5, "model": "demo"}
    mapping = {"llm": {"d": table}, "route": [{"path_prefix": "/v1", "target_llm": "d"}]}

    config, _ = structure(mapping, Registry.of(demo, openai), {})

    assert config.llms["d"] == DemoConfig(
        name="d", provider="demo", delay_ms=5, slow_first_byte_s=1, stall_s=0.5, model="demo"
    )


@pytest.mark.parametrize(("key", "value"), [("delay_ms", -1), ("stall_s", 0), ("slow_first_byte_s", "late")])
def test_a_value_out_of_range_is_a_problem_of_its_key(key: str, value: object) -> None:
    mapping = {
        "llm": {"d": {"provider": "demo", key: value}},
        "route": [{"path_prefix": "/v1", "target_llm": "d"}],
    }

    with pytest.raises(ConfigError) as caught:
        structure(mapping, Registry.of(demo, openai), {})

    assert [problem.path for problem in caught.value.problems] == [f"llm.d.{key}"]
