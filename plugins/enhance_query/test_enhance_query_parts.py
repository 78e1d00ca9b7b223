"""What only other protocols than OpenAI's can say, and LLMs with bugs: without sockets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from llmproxy_enhance_query import EnhanceQuery, EnhanceQueryConfig, Question

from llmproxy_core import Exchange, LLMClient, Pool, ProcessorFailed, Request, Response, Services, Tasks, Transport
from llmproxy_core.chat import (
    CacheMark,
    ChatRequest,
    Citation,
    ImagePart,
    Message,
    Part,
    Source,
    TextPart,
    ToolResult,
)
from llmproxy_core.testing import Pipeline, ScriptedLLM
from llmproxy_openai import OpenAIDialect

DIALECT = OpenAIDialect()
CHAT = next(api for api in DIALECT.apis if api.name == "openai.chat")


def said(*parts: Part) -> Question | None:
    return Question.of(Request.of_chat(ChatRequest("m", (Message("user", parts),))))


def test_a_tools_result_beside_a_text_is_left_alone() -> None:
    assert said(ToolResult("c", (TextPart("42"),)), TextPart("Go on")) is None


def test_what_was_said_of_the_text_goes_with_it_and_the_rest_stays() -> None:
    mark, image = CacheMark("5m"), ImagePart(Source(url="https://example.com/a"), cache=CacheMark())
    own: Mapping[str, bytes] = {"own": b"1.0"}
    question = said(TextPart("old", (Citation("page", end=2),), mark, "signed", extra=own), image)
    assert question is not None

    changed = question.reworded("new")

    assert changed.messages[-1].content == (TextPart("new", (), mark, None, extra=own), image)
    assert changed.messages[-1].content[1] is image


class Broken:
    """An LLM with a bug."""

    models: Any = None

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def send(self, exchange: Exchange) -> Response:
        raise self._error

    async def prices(self, model: str | None) -> list[None]:
        return [None]

    async def aclose(self) -> None: ...


def no_transport(pool: Pool) -> Transport:
    raise AssertionError("no network here")


@pytest.mark.parametrize("error", [TimeoutError("its own"), KeyError("bug")], ids=repr)
async def test_a_bug_of_the_llm_is_no_failure_to_pass_over(error: Exception) -> None:
    """A time-out that is not ours neither: what the bug was, the log must say."""
    tasks = Tasks()

    def broken(name: str) -> LLMClient:
        return Broken(error)

    processor = EnhanceQuery(
        EnhanceQueryConfig(llm="broken"), Services(llm=broken, transport=no_transport, tasks=tasks)
    )
    main = ScriptedLLM([], dialect=DIALECT, api=CHAT, tasks=tasks)
    async with Pipeline(DIALECT, main, processors=[processor], tasks=tasks) as pipeline:
        result = await pipeline.ask(CHAT, b'{"model":"m","messages":[{"role":"user","content":"hi"}]}')

    assert isinstance(result.error, ProcessorFailed)
    assert result.error.__cause__ is error
    assert main.requests == []
