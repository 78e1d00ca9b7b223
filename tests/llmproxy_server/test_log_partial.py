"""Content of answers that were broken off, or that are longer than what is kept."""

import logging
from collections.abc import Iterator

import pytest

from tests.llmproxy_server.edging import STREAM, ask, head, post
from tests.llmproxy_server.test_log_content import ON, Texts
from tests.llmproxy_server.transporting import until
from tests.proxy import Proxy, openai_at
from tests.rawclient import connected
from tests.upstream import Chunk, Cut, End, Head, Stall, Step, Upstream, chat_chunk, sse

TWO = sse(chat_chunk("one "), chat_chunk("two"), done=False)


@pytest.fixture
def texts() -> Iterator[Texts]:
    logger, handler = logging.getLogger("llmproxy.access"), Texts()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


async def test_a_stream_that_broke_off_tells_what_had_come(texts: Texts) -> None:
    async with (
        Upstream([Head(), Chunk(TWO), Cut()]) as upstream,
        Proxy(openai_at(upstream.base_url, server=ON)) as proxy,
        connected(proxy.port) as client,
    ):
        await ask(client, post(STREAM))

    (line,) = texts.lines
    assert (line["status"], line["error"], line["answer"]) == (502, "upstream_cut", "one two")


async def test_a_stream_whose_client_left_tells_what_had_come(texts: Texts) -> None:
    async with (
        Upstream([Head(), Chunk(TWO), Stall()]) as upstream,
        Proxy(openai_at(upstream.base_url, server=ON)) as proxy,
    ):
        async with connected(proxy.port) as client:
            client.send(post(STREAM))
            await head(client)
            await client.until(b"two")
        await until(lambda: bool(texts.lines))

    assert (texts.lines[0]["status"], texts.lines[0]["answer"]) == (499, "one two")


async def test_of_a_stream_longer_than_what_is_kept_the_beginning_is_told(texts: Texts) -> None:
    word = sse(chat_chunk("word "), done=False)
    server = {"log": {"log_content": True, "max_content_bytes": 64}}
    script: list[Step] = [Head(), *[Chunk(word * 100)] * 20, Chunk(sse(chat_chunk(None, finish="stop"))), End()]
    async with (
        Upstream(script) as upstream,
        Proxy(openai_at(upstream.base_url, server=server)) as proxy,
        connected(proxy.port) as client,
    ):
        await ask(client, post(STREAM))

    assert texts.lines[0]["answer"].startswith("word word word")
