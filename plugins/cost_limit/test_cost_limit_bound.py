"""The most that a call may cost: what is reserved is never less than what is settled, and never without reason."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from llmproxy_cost_limit.config import IMAGE_TOKENS, CostLimitConfig
from llmproxy_cost_limit.demand import MOST_TOKENS, TEMPLATE_TOKENS, TOOL_TOKENS, Demand
from test_cost_limit_shared import HIDDEN, INPUT, OUTPUT, PRICES, Direct, Limited, asking, bound, limited, usd

from llmproxy_core import (
    Api,
    BadRequest,
    Money,
    Operation,
    Price,
    Request,
    Unsupported,
    Usage,
)
from llmproxy_core.chat import ChatRequest, ImagePart, Message, OpaquePart, Raw, Source, TextPart, ToolResult
from llmproxy_core.outcome import End
from tests.answers import chat_chunk, completion, reply, stream, usage_chunk
from tests.llmproxy_core.conversation import APIS, DIALECT
from tests.llmproxy_core.conversation import CHAT as CHAT_API
from tests.upstream import Upstream

CAP, IMAGE = 50, 1000
"""The caps that are assumed in most tests here."""


def request_of(body: dict[str, Any], api: Api = CHAT_API) -> Request:
    return Request(operation=api.operation, dialect=DIALECT, api=api, path=api.path, body=json.dumps(body).encode())


def chat(*content: dict[str, Any] | str, **more: object) -> dict[str, Any]:
    """A question; *content*: parts of the user's message, or its texts."""
    parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
    return {"model": "m", "messages": [{"role": "user", "content": parts}], **more}


def spoken(role: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": role, "content": parts}, {"role": "user", "content": "hi"}]}


def demand(body: dict[str, Any], api: Api = CHAT_API) -> tuple[int, int]:
    """Tokens of input beyond the bytes of the body and the template's, and those of output."""
    request = request_of(body, api)
    found = Demand.of(request, CAP, IMAGE)
    return found.input_tokens - len(request.body) - TEMPLATE_TOKENS, found.output_tokens


URL_IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
DATA = "iVBORw0KGgo" * 1000
INLINE_IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DATA}"}}
FILE = {"type": "file", "file": {"file_id": "file-1"}}
PDF = {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{DATA}"}}
SOUND = {"type": "input_audio", "input_audio": {"data": DATA, "format": "wav"}}
VIDEO = {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}}
UNKNOWN = {"type": "hologram", "hologram": {"url": "https://example.com/a.holo"}}
PREDICTION = {"type": "content", "content": "x" * 90}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (chat("hi"), (0, CAP)),
        (chat("hi", max_tokens=7), (0, 7)),
        (chat("hi", max_completion_tokens=8), (0, 8)),
        (chat("hi", max_tokens=7, max_completion_tokens=8), (0, 8)),
        (chat("hi", max_tokens=8, max_completion_tokens=7), (0, 8)),
        (chat("hi", max_tokens=7, max_completion_tokens=-1), (0, CAP)),
        (chat("hi", max_tokens=7, max_completion_tokens=0), (0, CAP)),
        (chat("hi", max_tokens=7, MAX_TOKENS=8.5), (0, 9)),
        (chat("hi", max_tokens=7, max_toKens=8), (0, 8)),
        (chat("hi", max_tokens=7, n_predict=8), (0, 8)),
        (chat("hi", max_tokens=7, n_predict="-1"), (0, CAP)),
        (chat("hi", max_tokens=8, n_predict=7), (0, 8)),
        (chat("hi", max_new_tokens=7), (0, CAP)),
        (chat("hi", max_tokens=7, maxOutputTokens=8), (0, 8)),
        (chat("hi", max_tokens=7, generationConfig={"maxOutputTokens": 8, "max_output_tokens": 9}), (0, 9)),
        (chat("hi", max_tokens=7, generation_config={"candidate_count": 3, "candidateCount": 1}), (0, 21)),
        (chat("hi", max_tokens=7, options={"num_predict": -1}), (0, CAP)),
        (chat("hi", max_tokens=7, options=[8]), (0, 7)),
        (chat("hi", max_new_tokens="1e400"), (0, MOST_TOKENS)),
        (chat("hi", max_new_tokens=["?"]), (0, CAP)),
        (chat("hi", max_tokens=0), (0, CAP)),
        (chat("hi", max_tokens=-5), (0, CAP)),
        (chat("hi", max_tokens=10**40), (0, MOST_TOKENS)),
        (chat("hi", n=3), (0, 3 * CAP)),
        (chat("hi", n=3, max_tokens=7), (0, 21)),
        (chat("hi", n=3, N=4), (0, 4 * CAP)),
        (chat("hi", best_of="4"), (0, 4 * CAP)),
        (chat("hi", n=0), (0, CAP)),
        (chat("hi", n=-2), (0, CAP)),
        (chat("hi", prediction=PREDICTION), (0, CAP + len(json.dumps(PREDICTION)))),
        (chat("hi", URL_IMAGE), (IMAGE, CAP)),
        (chat("hi", URL_IMAGE, URL_IMAGE), (2 * IMAGE, CAP)),
        (chat("hi", INLINE_IMAGE), (IMAGE - len(DATA), CAP)),
        (chat("hi", {"type": "image_url", "image_url": {"url": f"data:application/pdf;base64,{DATA}"}}), (IMAGE, CAP)),
        (chat("hi", {"type": "image_url", "image_url": {"url": f"data:;base64,{DATA}"}}), (IMAGE, CAP)),
        (chat("hi", FILE), (IMAGE, CAP)),
        (chat("hi", PDF), (IMAGE, CAP)),
        (chat("hi", SOUND), (IMAGE, CAP)),
        (chat("hi", VIDEO), (IMAGE, CAP)),
        (chat("hi", UNKNOWN), (IMAGE, CAP)),
        (spoken("system", UNKNOWN), (IMAGE, CAP)),
        (spoken("assistant", UNKNOWN), (0, CAP)),
        (spoken("assistant", {**VIDEO, "type": "input_video"}), (IMAGE, CAP)),
        (chat("hi", tools=[TOOL]), (TOOL_TOKENS, CAP)),
        (chat("hi", tools=[TOOL, TOOL]), (TOOL_TOKENS, CAP)),
        (chat("hi", tools=[TOOL, {"type": "web_search"}]), (2 * TOOL_TOKENS, CAP)),
    ],
    ids=[
        "no cap",
        "a cap",
        "a cap by its newer name",
        "two caps: some servers go by the older",
        "two caps: others by the newer",
        "two caps, one of which is none",
        "two caps, one of which some servers take for none",
        "a cap in another case, which servers written in Go take",
        "a cap in another case of Unicode's",
        "a cap of llama.cpp's own",
        "a cap of its own that means endless",
        "a cap of its own at whoever does not know it",
        "a cap that perhaps nobody knows",
        "a cap of Gemini's",
        "two caps of Gemini's, both of which it knows",
        "candidates of Gemini's in both spellings",
        "a cap among Ollama's options",
        "options that are none",
        "a cap like none",
        "a cap that is no number",
        "no cap, or nothing to be said",
        "a cap below zero, which is none",
        "a huge cap",
        "choices",
        "choices with a cap",
        "choices in two cases",
        "choices that are made, not given",
        "no choice",
        "choices below zero",
        "a prediction, which is paid for where it is wrong",
        "an image by its URL",
        "two images",
        "an inline image: its bytes are no text",
        "an inline document in an image's place",
        "inline data of an unknown type",
        "a file by its id",
        "an inline document: its bytes count too",
        "sound",
        "video",
        "a part nobody knows",
        "a part nobody knows, of the operator's",
        "a part nobody knows of an answer",
        "a part of an answer that says it is a medium",
        "a tool",
        "tools",
        "a tool of the provider's",
    ],
)
def test_what_a_chat_may_use(body: dict[str, Any], expected: tuple[int, int]) -> None:
    assert demand(body) == expected


def test_what_an_older_completion_may_use() -> None:
    api = APIS["openai.completions"]
    asked = {"model": "m", "prompt": "hi", "max_tokens": 7}

    assert demand(asked, api) == (0, 7)
    assert demand({**asked, "n": 2, "best_of": 5}, api) == (0, 35)
    assert demand({**asked, "n": 2, "best_of": 5.0}, api) == (0, 35)  # Pydantic takes both for an integer
    assert demand({**asked, "n": 2, "best_of": "5"}, api) == (0, 35)
    assert demand({**asked, "best_of": 10**40}, api) == (0, 7 * MOST_TOKENS)
    assert demand({**asked, "best_of": "many"}, api) == (0, 7)


def test_what_embeddings_may_use() -> None:
    request = request_of({"model": "m", "input": ["a"] * 100}, APIS["openai.embeddings"])

    assert Demand.of(request, CAP, IMAGE) == Demand(len(request.body), 0)


def test_an_embedding_of_images_counts_them() -> None:
    """Jina's servers take an object in the place of a text, vLLM a conversation."""
    image = {"image": "https://example.com/a.png"}
    cases: list[tuple[dict[str, Any], int]] = [
        ({"model": "m", "input": [image, "a", image]}, 2),
        ({"model": "m", "input": "a {brace} is no object"}, 0),
        ({"model": "m", "messages": [{"role": "user", "content": [URL_IMAGE]}]}, 3),
    ]
    for body, media in cases:
        request = request_of(body, APIS["openai.embeddings"])
        assert Demand.of(request, CAP, IMAGE) == Demand(len(request.body) + media * IMAGE, 0)


@pytest.mark.parametrize("prompt", [["a", "b"], [1, 2, 3]], ids=["several", "tokens"])
def test_what_cannot_be_read_cannot_be_bounded(prompt: list[object]) -> None:
    with pytest.raises(Unsupported):
        demand({"model": "m", "prompt": prompt}, APIS["openai.completions"])
    with pytest.raises(BadRequest):
        demand({"model": "m", "messages": 7})


def test_media_in_the_result_of_a_tool_count() -> None:
    part = ImagePart(Source(url="https://example.com/a.png"))
    result = Message("tool", (ToolResult("1", (TextPart("see"), part, part)),))
    opaque = OpaquePart("search_result", Raw("other", b'{"type":"search_result"}'))
    plain, pictured, searched = (
        Demand.of(Request.of_chat(ChatRequest("m", (message,))), CAP, 10**9).input_tokens // 10**9
        for message in (Message("user", ()), result, Message("assistant", (opaque,)))
    )

    assert (plain, pictured, searched) == (0, 2, 0)


def test_a_request_without_a_wire_form_is_bounded_by_what_it_says() -> None:
    said = "ä" * 1000

    found = Demand.of(Request.of_chat(ChatRequest("m", (Message("user", (TextPart(said),)),))), CAP, IMAGE)

    assert found.input_tokens > len(said.encode())


def test_the_assumption_for_an_image_is_the_largest_known_one() -> None:
    """2833 tokens and 5667 for each of 8 tiles: gpt-4o-mini."""
    assert IMAGE_TOKENS == 2833 + 8 * 5667 == CostLimitConfig(total_usd=Money(1)).assumed_image_tokens


# -- as a call is admitted -------------------------------------------------------------------------------------------


async def bound_of(question: bytes, prices: dict[str, Any] = PRICES, **keys: object) -> int:
    """What is reserved for *question*: the limit that just admits it, as it is told when it does not."""
    mapping = limited("http://127.0.0.1:9/v1", {"per_request_usd": "0.000000001", **keys}, prices=prices)
    async with Limited(mapping) as proxy:
        seen = await proxy.ask(question)
        assert seen.status == 402, seen.body
        return Money.usd(str(proxy.exchanges[0].log_fields["cost_bound"])[1:]).nanodollars


async def test_without_a_cap_the_assumed_one_counts() -> None:
    question = asking(cap=None)

    assert await bound_of(question) == bound(question, 4096)
    assert await bound_of(question, assumed_output_tokens=10) == bound(question, 10)


async def test_an_image_counts_as_it_is_assumed_to() -> None:
    question = json.dumps(chat("hi", URL_IMAGE, max_tokens=100)).encode()

    assert await bound_of(question) == bound(question) + 48_169 * INPUT
    assert await bound_of(question, assumed_image_tokens=10) == bound(question) + 10 * INPUT


@pytest.mark.parametrize(
    "dear",
    [
        {"cached_input": "3.00", "audio_output": "7.00"},
        {"tiers": [{"above_input_tokens": 200_000, "input": "3.00", "output": "7.00"}]},
        {"service_tiers": {"priority": {"input": "3.00", "output": "7.00"}}},
    ],
    ids=["classes", "a tier that the request is far from", "a service tier that nobody asked for"],
)
async def test_the_dearest_class_and_tier_count(dear: dict[str, Any]) -> None:
    """They were cheap when #40002 of another gateway reserved for them."""
    question = asking()

    found = await bound_of(question, {"m": {"input": "1.00", "output": "2.00", **dear}})

    assert found == (len(question) + HIDDEN) * 3000 + 100 * 7000


async def test_the_dearest_model_counts_that_may_be_sent() -> None:
    """A group that has not chosen yet: the bound covers whichever member answers."""
    question = asking(cap=1000)

    async with Direct({"a": Price(10**9, 5 * 10**9), "b": Price(2 * 10**9, 10**9)}) as direct:
        exchange = await direct.call(request_of(json.loads(question)), Usage(), Price(0, 0))

    assert exchange.log_fields["cost_bound"] == str(Money((len(question) + HIDDEN) * 1000 + 1000 * 5000))


# -- settled to the truth --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(("prompt", "said"), [(9, 3), (1, 0), (1, 100), (300, 100)])
async def test_the_truth_is_booked_and_the_rest_is_free_again(prompt: int, said: int, streamed: bool) -> None:
    question = asking(stream=streamed)
    answer = (
        stream(chat_chunk("yes", finish="stop"), usage_chunk(prompt, said))
        if streamed
        else reply(completion("yes", prompt=prompt, completion=said))
    )
    async with (
        Upstream(answer) as upstream,
        Limited(limited(upstream.base_url, {"total_usd": usd(bound(question))})) as proxy,
    ):
        seen = await proxy.ask(question)
        figures, records = await proxy.figures(), await proxy.records()
        overruns = proxy.limiter.overruns

    cost = prompt * INPUT + said * OUTPUT
    assert seen.status == 200
    assert figures == (cost, 0)
    assert overruns == 0
    assert [record.cost for record in records] == [Money(cost)]


async def test_a_record_says_whose_call_it_was() -> None:
    async with (
        Upstream(reply(completion("yes", model="m-2026"))) as upstream,
        Limited(limited(upstream.base_url, {"total_usd": "1"})) as proxy,
    ):
        await proxy.ask(x_request_id="mine-1")
        (record,) = await proxy.records()
        now = proxy.wall.now

    assert record.at == now
    assert (record.exchange, record.caller, record.route, record.model) == ("mine-1", "anonymous", "/v1", "m-2026")
    assert (record.end, record.usage, record.cost) == (End.COMPLETED, Usage(9, 3), Money(9 * INPUT + 3 * OUTPUT))


async def test_a_call_that_used_more_than_it_might_is_booked_truthfully_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    question = asking()
    async with (
        Upstream(reply(completion("yes", prompt=5, completion=1_000_000))) as upstream,
        Limited(limited(upstream.base_url, {"total_usd": usd(bound(question))})) as proxy,
    ):
        first, second = await proxy.ask(question), await proxy.ask(question)
        figures, overruns = await proxy.figures(), proxy.limiter.overruns

    assert (first.status, second.status) == (200, 402)
    assert figures == (5 * INPUT + 1_000_000 * OUTPUT, 0)
    assert overruns == 1
    assert [record for record in caplog.records if "was reserved" in record.message and record.levelname == "WARNING"]


async def test_a_call_that_used_all_that_it_might_is_no_overrun() -> None:
    question = asking()
    used = completion("yes", prompt=len(question) + HIDDEN, completion=100)
    async with (
        Upstream(reply(used)) as upstream,
        Limited(limited(upstream.base_url, {"total_usd": usd(bound(question))})) as proxy,
    ):
        await proxy.ask(question)
        figures, overruns = await proxy.figures(), proxy.limiter.overruns

    assert figures == (bound(question), 0)
    assert overruns == 0


@pytest.mark.parametrize(
    ("status", "body"), [(500, {"error": {"message": "no"}}), (429, {}), (401, {}), (200, {"error": {"message": "no"}})]
)
async def test_a_call_that_failed_is_free(status: int, body: object) -> None:
    async with (
        Upstream(reply(body, status)) as upstream,
        Limited(limited(upstream.base_url, {"total_usd": "1"})) as proxy,
    ):
        seen = await proxy.ask()
        figures, records = await proxy.figures(), await proxy.records()

    assert seen.status >= 400
    assert figures == (0, 0)
    assert not records


# -- for any usage within the bound ----------------------------------------------------------------------------------


rates = some.integers(0, 10**11)
flat = some.builds(
    Price, rates, rates, rates | some.none(), rates | some.none(), rates | some.none(), rates | some.none()
)
prices = some.builds(
    lambda base, tiers, service: Price(
        base.input,
        base.output,
        base.cached_input,
        base.cache_write,
        base.audio_input,
        base.audio_output,
        tuple(tiers),
        tuple(service),
    ),
    flat,
    some.lists(some.tuples(some.integers(0, 400), flat), max_size=2),
    some.lists(some.tuples(some.sampled_from(["priority", "flex"]), flat), max_size=2),
)


@settings(deadline=None, max_examples=100)
@given(data=some.data(), price=prices, text=some.text(max_size=60), cap=some.integers(0, 200), n=some.integers(1, 4))
def test_what_is_settled_is_never_more_than_what_was_reserved(
    data: Any, price: Price, text: str, cap: int, n: int
) -> None:
    request = request_of(chat(text, max_tokens=cap, n=n))
    most = Demand.of(request, CAP, IMAGE)
    asked, said = data.draw(some.integers(0, most.input_tokens)), data.draw(some.integers(0, most.output_tokens))
    parts = some.integers(0, asked)
    usage = Usage(
        asked,
        said,
        cached_input_tokens=data.draw(parts),
        cache_write_tokens=data.draw(parts),
        audio_input_tokens=data.draw(parts),
        audio_output_tokens=data.draw(some.integers(0, said)),
        service_tier=data.draw(some.sampled_from([None, "priority", "flex", "default"])),
    )

    async def spend() -> None:
        async with Direct({"m": price}) as direct:
            exchange = await direct.call(request, usage, price)
            spent, reserved = await direct.figures()
            told = Money.usd(str(exchange.log_fields["cost_bound"])[1:])

            assert reserved == Money(0)
            assert spent == price.cost(usage) <= told
            assert direct.limiter.overruns == 0

    asyncio.run(spend())


@pytest.mark.parametrize("priced", [True, False])
async def test_counting_tokens_is_free(priced: bool) -> None:
    """So an unknown price is no reason to refuse it."""
    api = Api("x.count", Operation.COUNT_TOKENS, "POST", "/count")
    request = Request(operation=api.operation, dialect=DIALECT, api=api, path=api.path, body=b"{}")

    async with Direct({"m": Price(1, 1) if priced else None}, per_request_usd=Money(1)) as direct:
        exchange = await direct.call(request, Usage(10**6, 0), Price(0, 0))
        figures = await direct.figures()

    assert exchange.log_fields["cost_bound"] == "$0"
    assert figures == (Money(0), Money(0))
