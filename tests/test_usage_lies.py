"""A count that cannot be true bills what no count does: the estimate of that half, in every protocol, on every path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs
import llmproxy_anthropic
import llmproxy_gemini
import llmproxy_mistral
import llmproxy_ollama
import pytest

from llmproxy_core import Api, Dialect, Money, Operation, Usage, UsageSource
from llmproxy_core.chat import (
    ChatEvent,
    ChatReply,
    ChatRequest,
    Choice,
    End,
    Finish,
    Finished,
    FinishReason,
    Message,
    Start,
    TextDelta,
    TextPart,
    UsageReported,
)
from llmproxy_core.plugins import Registry
from llmproxy_core.reply_events import Assembler
from tests.exact import Seen, post
from tests.proxy import STANDARD_PLUGINS, Proxy
from tests.script import Chunk, Head, Script
from tests.script import End as EndOfBody
from tests.upstream import Upstream

PLUGINS = (llmproxy_anthropic, llmproxy_gemini, llmproxy_mistral, llmproxy_ollama)
DIALECTS = Registry.of(*STANDARD_PLUGINS, *PLUGINS).dialects
PRICES = {"*": {"input": "1.00", "output": "2.00"}}  # 1000 and 2000 nanodollars a token

ASKED, ANSWERED = 4242, 1717  # nothing else in an answer looks like these
WORDS = "It is a truth universally acknowledged, that a single man in possession of a good fortune, "
READ = -(-len(WORDS) // 4)
QUESTION = 4 + 1  # the turn, and "hi"

LIES: Mapping[str, bytes | None] = {
    "negative": b"-3",
    "fraction": b"1.5",
    "huge": b"20000001",
    "vast": b"1" + b"0" * 30,
    "out of range": b"1e999",
    "text": b'"many"',
    "true": b"true",
    "list": b"[7]",
    "null": b"null",
    "missing": None,
}


@attrs.frozen
class Provider:
    """Who answers in a protocol, and what it calls its counts; *total* where it tells the sum as well."""

    dialect: str
    asked: str
    answered: str
    total: str | None
    keys: Mapping[str, str] = {}

    def __str__(self) -> str:
        return self.dialect

    def llm(self, url: str) -> dict[str, Any]:
        own = {"provider": self.dialect, "base_url": url, "prices": PRICES, **self.keys}
        return own if self.dialect == "ollama" else {**own, "token_env": "KEY"}


PROVIDERS = (
    Provider("openai", "prompt_tokens", "completion_tokens", "total_tokens"),
    Provider("mistral", "prompt_tokens", "completion_tokens", "total_tokens"),
    Provider(
        "openai-responses",
        "input_tokens",
        "output_tokens",
        "total_tokens",
        {"provider": "openai", "type": "responses"},
    ),
    Provider("anthropic", "input_tokens", "output_tokens", None),
    Provider("gemini", "promptTokenCount", "candidatesTokenCount", "totalTokenCount"),
    Provider("ollama", "prompt_eval_count", "eval_count", None),
)


def lie(answer: bytes, names: tuple[str | None, ...], told: bytes | None) -> bytes:
    """*answer*, with *told* for each count of *names*, wherever it stands; None: without it."""
    for name in filter(None, names):
        count = rb'"%b":\s*[0-9]+' % name.encode()
        if told is None:
            answer = re.sub(count + rb",|,?" + count, b"", answer)
        else:
            answer = re.sub(count, b'"%b":%b' % (name.encode(), told), answer)
    return answer


# -- an honest answer, and who reads it --------------------------------------------------------------------------------


def api_of(name: str, *, stream: bool) -> tuple[Dialect, Api]:
    dialect = DIALECTS[name]
    api = dialect.api_for(Operation.CHAT, stream=stream)
    assert api is not None
    return dialect, api


def honest(name: str, *, stream: bool) -> bytes:
    dialect, api = api_of(name, stream=stream)
    usage, finish = Usage(ASKED, ANSWERED), Finish(FinishReason.STOP)
    if not stream:
        return dialect.write_reply(api, ChatReply("r1", "m", (Choice(0, (TextPart(WORDS),), finish),), usage))
    said = [TextDelta(0, WORDS[start : start + 9]) for start in range(0, len(WORDS), 9)]
    told = UsageReported(usage)
    events: list[ChatEvent] = [Start("r1", "m"), told, *said, Finished(0, finish), told, End()]
    writer = dialect.writer(api, usage=True)
    return b"".join(writer.write([event], None) for event in events)


def script(name: str, body: bytes, *, stream: bool) -> Script:
    kind = api_of(name, stream=stream)[1].stream_type if stream else "application/json"
    return [Head(200, {"content-type": kind}), Chunk(body), EndOfBody()]


async def ask(proxy: Proxy, client: str, *, stream: bool) -> Seen:
    dialect, api = api_of(client, stream=stream)
    chat = ChatRequest(
        "m", (Message("user", (TextPart("hi"),)),), stream=stream, wants_usage=stream, max_output_tokens=200
    )
    path = dialect.roots[0] + api.path.replace("{model}", "m") + (f"?{api.query}" if api.query else "")
    seen = await post(f"{proxy.url}/{client}{path}", dialect.write_chat(api, chat))
    assert (seen.status, seen.whole) == (200, True), seen
    return seen


def told(client: str, body: bytes, *, stream: bool) -> tuple[int, int]:
    """Input and output as *client* reads them."""
    dialect, api = api_of(client, stream=stream)
    if stream:
        reader, assembler = dialect.reader(api), Assembler()
        for frame in [*reader.feed(body), *reader.end()]:
            assembler.feed(frame.events)
        usage = assembler.reply().usage
    else:
        usage = dialect.read_reply(api, body).usage
    assert usage is not None
    return usage.input_tokens, usage.output_tokens


def between(provider: Provider, client: str, url: str) -> dict[str, Any]:
    route = {"path_prefix": f"/{client}", "target_llm": "x", "dialect": client}
    return {"llm": {"x": provider.llm(url)}, "route": [route]}


PATHS = pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
BY = pytest.mark.parametrize("provider", PROVIDERS, ids=str)
TO = pytest.mark.parametrize("translated", [False, True], ids=["copied", "translated"])


@PATHS
@TO
@BY
async def test_a_count_that_cannot_be_true_bills_what_no_count_does(
    provider: Provider, translated: bool, stream: bool
) -> None:
    """Of each half, and of both. Who speaks the provider's protocol sees what it wrote; who does not, the bill."""
    client = ("anthropic" if provider.dialect != "anthropic" else "openai") if translated else provider.dialect
    answer = honest(provider.dialect, stream=stream)
    halves = {"input": (provider.asked,), "output": (provider.answered,), "both": (provider.asked, provider.answered)}
    number = 0
    async with Upstream() as upstream, Proxy(between(provider, client, upstream.url), plugins=PLUGINS) as proxy:
        for half, names in halves.items():
            for what, count in LIES.items():
                about, number = f"{half}: {what}", number + 1
                body = lie(answer, (*names, provider.total), count)
                assert body != answer, about
                upstream.script = script(provider.dialect, body, stream=stream)

                seen = await ask(proxy, client, stream=stream)

                usage, cost = (outcome := await proxy.outcome(number)).usage, outcome.cost
                assert usage is not None, about
                assert usage.source is UsageSource.ESTIMATED, about
                # In the JSON that is written a number out of all range is none: then nothing of it can be read.
                is_lost = what == "out of range" and provider.dialect != "ollama"
                if half == "output" and not is_lost:
                    assert usage.input_tokens == ASKED, about
                else:
                    assert QUESTION <= usage.input_tokens <= QUESTION + 1, about
                if half == "input" and not is_lost:
                    assert usage.output_tokens == ANSWERED, about
                else:
                    assert READ * 0.7 <= usage.output_tokens <= READ * 1.3, about
                assert cost == Money(usage.input_tokens * 1000 + usage.output_tokens * 2000), about
                if translated:
                    read = told(client, seen.body, stream=stream)
                    assert read == (usage.input_tokens, usage.output_tokens), about
                else:
                    assert seen.body == body, about


@PATHS
@BY
async def test_the_truth_is_billed_as_told(provider: Provider, stream: bool) -> None:
    """Up to the largest count that may be true; and 0 output is one that may."""
    dialect = provider.dialect
    answer = honest(dialect, stream=stream)
    most = answer.replace(b"%d" % ANSWERED, b"20000000").replace(b"%d" % (ASKED + ANSWERED), b"%d" % (ASKED + 20000000))
    bodies = {ANSWERED: answer, 20000000: most if provider.total is None else lie(most, (provider.total,), None)}
    bodies[0] = lie(lie(answer, (provider.answered,), b"0"), (provider.total,), b"%d" % ASKED)
    async with Upstream() as upstream, Proxy(between(provider, dialect, upstream.url), plugins=PLUGINS) as proxy:
        for number, (answered, body) in enumerate(bodies.items(), 1):
            upstream.script = script(dialect, body, stream=stream)

            await ask(proxy, dialect, stream=stream)

            outcome = await proxy.outcome(number)
            assert outcome.usage is not None
            assert (outcome.usage.input_tokens, outcome.usage.output_tokens) == (ASKED, answered)
            assert outcome.usage.source is UsageSource.REPORTED
            assert outcome.cost == Money(ASKED * 1000 + answered * 2000)


async def test_a_last_count_that_is_a_lie_does_not_leave_the_first_chunks_one() -> None:
    """Servers that count in each chunk tell a beginning first."""
    provider = PROVIDERS[0]
    first = b'data: {"id":"r1","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":1}}\n\n'
    body = first + lie(honest("openai", stream=True), (provider.asked, provider.answered, provider.total), b"-1")
    async with (
        Upstream(script("openai", body, stream=True)) as upstream,
        Proxy(between(provider, "openai", upstream.url)) as proxy,
    ):
        await ask(proxy, "openai", stream=True)

        usage = (await proxy.outcome()).usage

    assert usage is not None
    assert usage.output_tokens >= READ * 0.7
