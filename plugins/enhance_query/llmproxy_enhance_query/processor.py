"""The processor: it asks for the rewritten text, and does what the table says when there is none."""

from __future__ import annotations

import asyncio

import attrs

from llmproxy_core import (
    Exchange,
    Handler,
    LLMClient,
    Note,
    ProxyError,
    Request,
    Response,
    Services,
    UpstreamError,
    UpstreamTimeout,
)
from llmproxy_core.chat import ChatReply, ChatRequest, FinishReason, Message, RefusalPart, TextPart
from llmproxy_enhance_query.config import EnhanceQueryConfig
from llmproxy_enhance_query.question import Question

FAILED = "enhance_query_failed"
"""The code of the error that a caller gets under `on_failure = "reject"`."""

_ADVICE = {
    FinishReason.LENGTH: "the answer was cut off; max_output_tokens may be too low",
    FinishReason.CONTENT_FILTER: "the provider's content filter stopped the answer",
    FinishReason.REFUSAL: "the model refused",
}


@attrs.frozen
class Enhanced:
    """What the user said last, and what the route's LLM was asked in its place."""

    original: str
    enhanced: str


ENHANCED: Note[Enhanced] = Note("enhance_query")
"""In the notes of an exchange whose text was rewritten, for later processors; the last one's, where there are two."""


class EnhanceQuery:
    """Has an LLM rewrite the question that a request ends with; nothing else of the request changes."""

    def __init__(self, config: EnhanceQueryConfig, services: Services) -> None:
        self._config = config
        self._services = services
        self._done: Note[Enhanced] = Note("enhance_query of one processor")

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        question = Question.of(exchange.request)
        if question is None:
            exchange.log_fields["enhance_query"] = "skipped"
        elif not self._has_written(question.text, exchange):
            await self._change(exchange, question)
        return await call_next(exchange)

    def _has_written(self, text: str, exchange: Exchange) -> bool:
        """Whether *text* is our own: a processor around this one calls again, and its request is rewritten already."""
        done = exchange.notes.get(self._done)
        return done is not None and done.enhanced == text

    async def _change(self, exchange: Exchange, question: Question) -> None:
        """Put the rewritten question into the request; without one, do what `on_failure` says."""
        try:
            text = await self._ask(exchange, question.text)
        except ProxyError as error:
            exchange.log_fields["enhance_query"] = "failed"
            exchange.log_fields["enhance_query_error"] = error.code
            if self._config.on_failure == "reject":
                raise _passed_on(error) from error
            return
        exchange.request = exchange.request.with_chat(question.reworded(text))
        self._tell(exchange, Enhanced(question.text, text))

    async def _ask(self, exchange: Exchange, text: str) -> str:
        """*text* as the LLM rewrites it. Raises the ProxyError that the call ended with, or that its answer is."""
        config = self._config
        clock = asyncio.timeout(config.llm_timeout_s)
        async with exchange.child(self._request(exchange.request.model, text)) as child:
            try:
                async with clock:
                    response = await self._llm(exchange).send(child)
                    reply = await response.reply()
            except TimeoutError as error:
                if not clock.expired():
                    raise  # a bug of the LLM's: core names it
                message = f"the model did not answer within {config.llm_timeout_s:g} s"
                raise UpstreamTimeout(message, code="upstream_timeout_total") from error
            return _rewritten(reply)

    def _llm(self, exchange: Exchange) -> LLMClient:
        if self._config.llm is not None:
            return self._services.llm(self._config.llm)
        return self._services.route(exchange.route).llm

    def _request(self, asked_model: str | None, text: str) -> Request:
        """The user's text is data: it is a message of its own, and no part of what the model is told to do."""
        config = self._config
        messages = (Message("system", (TextPart(config.system_prompt),)), Message("user", (TextPart(text),)))
        return Request.of_chat(
            ChatRequest(
                config.model if config.model is not None else asked_model,
                messages,
                max_output_tokens=config.max_output_tokens,
                temperature=config.temperature,
            )
        )

    def _tell(self, exchange: Exchange, enhanced: Enhanced) -> None:
        exchange.notes[ENHANCED] = exchange.notes[self._done] = enhanced
        exchange.log_fields["enhance_query"] = "enhanced"
        if self._config.log_content:
            exchange.log_fields["enhance_query_original"] = enhanced.original
            exchange.log_fields["enhance_query_enhanced"] = enhanced.enhanced


def _rewritten(reply: ChatReply) -> str:
    """The text of *reply*, less the space around it; UpstreamError for an answer that is none, or not a whole one."""
    if not reply.choices:
        raise UpstreamError("the model gave no answer")
    choice = reply.choices[0]
    finish = None if choice.finish is None else choice.finish.reason
    if any(isinstance(part, RefusalPart) for part in choice.content):
        finish = FinishReason.REFUSAL
    if finish not in (None, FinishReason.STOP):  # some servers give no reason
        raise UpstreamError(_ADVICE.get(finish, f"the answer ended with {finish}"))
    if not (text := choice.text.strip()):
        raise UpstreamError("the model answered without text")
    return text


def _passed_on(error: ProxyError) -> UpstreamError:
    """
    *error*, of a call that is not the caller's own, as the caller may see it.

    Never with its status (a 404 or 429 would be about a model, or a limit, that the caller did not ask for) nor its
    body; its sentence is clean: whoever raised it has cut its secrets out.
    """
    return UpstreamError(
        f"The question could not be enhanced: {error.message}",
        status=504 if error.status == 504 else 502,
        code=FAILED,
        retryable=error.retryable,
        retry_after_s=error.retry_after_s,
    )
