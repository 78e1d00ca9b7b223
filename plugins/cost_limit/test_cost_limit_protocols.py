"""What a provider reports in its own way is booked to the nanodollar, whatever the client speaks."""

from __future__ import annotations

from typing import Any

import attrs
import llmproxy_anthropic
import llmproxy_cost_limit
import llmproxy_gemini
import llmproxy_mistral
import pytest

from llmproxy_core import Limit, Money, Window
from tests.exact import post
from tests.proxy import Proxy
from tests.recordings import Recording, recordings
from tests.speaking import SPEAKERS, Speaker, llm_at
from tests.upstream import Upstream, replay

PLUGINS = (llmproxy_anthropic, llmproxy_gemini, llmproxy_mistral, llmproxy_cost_limit)
PRICES = {"input": "1.00", "cached_input": "0.10", "cache_write": "1.25", "cache_write_1h": "2.00", "output": "10.00"}
ACCOUNT = Limit('["cost_limit","caller","","anonymous"]', Window.DAY, Money.usd(1))


@attrs.frozen(kw_only=True)
class Bill:
    """The tokens that a recorded answer is billed for; each is in one class alone."""

    recording: str
    fresh: int
    output: int
    cached: int = 0
    written: int = 0
    written_1h: int = 0

    def __str__(self) -> str:
        return self.recording

    @property
    def cost(self) -> Money:
        asked = self.fresh * 1000 + self.cached * 100 + self.written * 1250 + self.written_1h * 2000
        return Money(asked + self.output * 10_000)

    def found(self) -> Recording:
        return next(it for it in recordings() if str(it) == self.recording)


BILLS = (
    Bill(recording="openai/chat-stream-refusal-openai-completions-handles-for-stream-0", fresh=179, output=1000),
    Bill(
        recording="compatible/chat-json-deepseek-deferred-capability-with-thinking-2", fresh=80, cached=896, output=61
    ),
    Bill(
        recording="openai/responses-json-openai-responses-thinking-with-code-execution-tool-0",
        fresh=213,
        cached=1280,
        output=125,
    ),
    Bill(
        recording="openai/responses-stream-openai-responses-model-web-search-tool-stream-0",
        fresh=1143,
        cached=8320,
        output=582,
    ),
    Bill(
        recording="anthropic/messages-json-code-execution-files-vcr-anthropic-cache-prefix-stable-messages-2",
        fresh=4,
        cached=14210,
        written=426,
        output=290,
    ),
    Bill(
        recording="anthropic/messages-stream-prompt-caching-anthropic-async-stream-legacy-1",
        fresh=4,
        cached=1167,
        output=256,
    ),
    Bill(  # its message_delta corrects what its message_start said
        recording="anthropic/messages-stream-web-search-tool-anthropic-streams-with-0",
        fresh=2250,
        written=11913,
        output=104,
    ),
    Bill(
        recording="gemini/generate-json-output-google-validated-accepts-what-auto-1", fresh=265, cached=594, output=28
    ),
    Bill(  # 17 of the prompt and 102 of its tools; 241 said and 412 thought
        recording="gemini/streamGenerate-stream-google-model-web-search-tool-stream-0",
        fresh=17 + 102,
        output=241 + 412,
    ),
    Bill(recording="mistral/chat-json-mistral-history-uses-prompt-cache-1", fresh=44, cached=224, output=5),
    Bill(recording="mistral/chat-stream-mistral-chat-model-complete-usage-0", fresh=7, output=33),
)


def mapping(dialect: str, url: str) -> dict[str, Any]:
    return {
        "llm": {"main": llm_at(dialect, url, prices={"*": PRICES})},
        "processor": {"cost_limit": {"type": "cost_limit", "daily_usd": "1.00"}},
        "route": [{"path_prefix": "/", "target_llm": "main", "operations": ["chat"], "processors": ["cost_limit"]}],
    }


async def booked(bill: Bill, recording: Recording, client: Speaker, body: bytes | None = None) -> Money:
    """What stands in the ledger after *client* has got the recorded answer."""
    stream = recording.grammar is not None
    upstream = Upstream(replay(recording, body=body))
    async with upstream, Proxy(mapping(recording.dialect, upstream.url), plugins=PLUGINS) as proxy:
        path = client.path(stream=stream, model="a-model")
        seen = await post(proxy.url + path, client.body(stream=stream, model="a-model"), client.headers())
        assert (seen.status, seen.whole) == (200, True), seen.body
        await proxy.outcome()
        await proxy.gateway.services.tasks.drain(10)
        ledger = proxy.gateway.stores["memory"].ledger("cost_limit")
        balance = await ledger.balance(ACCOUNT)
        records = await ledger.records()
    assert balance.reserved == Money()
    assert [record.cost for record in records] == [balance.spent]
    return balance.spent


@pytest.mark.parametrize("bill", BILLS, ids=str)
async def test_recorded_usage_costs_the_same_whoever_asks(bill: Bill) -> None:
    recording = bill.found()
    for client in SPEAKERS:
        if client.array and recording.dialect == "gemini":
            continue  # it would be answered with an array
        assert await booked(bill, recording, client) == bill.cost, str(client)


async def test_what_anthropic_writes_to_its_cache_for_an_hour_has_its_own_price() -> None:
    bill = Bill(recording=BILLS[4].recording, fresh=4, cached=14210, written=26, written_1h=400, output=290)
    recording = bill.found()
    was = b'"ephemeral_1h_input_tokens":0,"ephemeral_5m_input_tokens":426'
    now = b'"ephemeral_1h_input_tokens":400,"ephemeral_5m_input_tokens":26'
    assert was in recording.response_body

    for client in SPEAKERS:
        assert await booked(bill, recording, client, recording.response_body.replace(was, now)) == bill.cost
