"""A client of the proxy that is rehearsed: one call, what came of it, and what the proxy did for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from functools import partial

import attrs

from llmproxy_core.errors import Overloaded, ProxyError, UpstreamError, UpstreamTimeout
from llmproxy_core.exchange import Exchange
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.llm import Timeouts, UpstreamRequest, UpstreamResponse
from llmproxy_core.outcome import Outcome
from llmproxy_core.services import Pool
from llmproxy_core.tasks import Tasks
from llmproxy_server.door_id import REQUEST_ID
from llmproxy_server.rehearsal.provider import MARK
from llmproxy_server.rehearsal.questions import Question
from llmproxy_server.rehearsal.tally import By, Came, Seen
from llmproxy_server.wire.upstream import WireTransport

PATIENCE_S = 600.0
"""So long the SDKs of OpenAI and Anthropic wait for an answer, unless they are told otherwise."""
_BILL_S = 60.0


@attrs.define
class _Behind:
    """What is behind a call, at the proxy. *billed* is set once all is over that it pays for."""

    exchange: Exchange | None = None
    bill: Outcome | None = None
    billed: asyncio.Event = attrs.field(factory=asyncio.Event)


class Client:
    """Asks the proxy at *url*, once each time: it does not try again, as an SDK would."""

    def __init__(self, tasks: Tasks) -> None:
        self._transport = WireTransport(Pool(), tasks)
        self._under_way: dict[str, _Behind] = {}

    def observe(self, exchange: Exchange) -> None:
        """To be told of every exchange that begins at the proxy."""
        if (behind := self._under_way.get(exchange.id)) is not None:
            behind.exchange = exchange
            exchange.on_billed(partial(_billed, behind))

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def ask(self, url: str, question: Question, number: int) -> Seen:
        """Make the call with this *number*, 1 or more; gives what came of it once it is paid for."""
        name, behind = f"rehearsal-{number}", _Behind()
        self._under_way[name] = behind
        clock = asyncio.get_running_loop().time
        headers = [
            ("content-type", "application/json"),
            (REQUEST_ID, name),
            (MARK, f"00-{number:032x}-{number:016x}-00"),
        ]
        request = UpstreamRequest(question.api.method, url + question.path, headers, question.body(number))
        began_s = clock()
        status, came = await self._call(request, question)
        took_s = clock() - began_s
        if behind.exchange is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_BILL_S):
                    await behind.billed.wait()
        del self._under_way[name]
        return _seen(question, status, came, took_s, behind)

    async def _call(self, request: UpstreamRequest, question: Question) -> tuple[int | None, Came]:
        status: int | None = None
        timeouts = Timeouts(first_byte_s=None, idle_s=None, total_s=PATIENCE_S)
        try:
            answer = await self._transport.open(request, timeouts)
            status = answer.status
            body = await _read(answer)
        except UpstreamTimeout:
            return status, Came.GAVE_UP
        except UpstreamError:
            return status, Came.REFUSED if status is None else Came.BROKEN
        if status != 200:
            return status, Came.REFUSED
        return status, Came.ANSWERED if is_whole(body, question) else Came.BROKEN


async def _read(answer: UpstreamResponse) -> bytes:
    if (whole := answer.body.whole()) is not None:
        answer.body.release()
        return whole
    pieces: list[bytes] = []
    try:
        while data := await answer.body.read():
            pieces.append(data)
    except BaseException:
        answer.body.close()
        raise
    answer.body.release()
    return b"".join(pieces)


def is_whole(body: bytes, question: Question) -> bool:
    """Whether a client of that protocol takes *body* for a good answer."""
    if not question.stream:
        try:
            _ = question.dialect.read_reply(question.api, body)
        except UpstreamError:
            return False
        return True
    scanner = question.dialect.scanner(question.api, usage=True)
    try:
        scanner.feed(body)
        scanner.end()
    except UpstreamError:
        return False
    return scanner.error is None and scanner.done


def _billed(behind: _Behind, outcome: Outcome) -> None:
    behind.bill = outcome
    behind.billed.set()


def _seen(question: Question, status: int | None, came: Came, took_s: float, behind: _Behind) -> Seen:
    plain = Seen(route=question.route, stream=question.stream, came=came, seconds=took_s, status=status)
    exchange = behind.exchange
    if exchange is None:  # it was refused at the door
        if status == question.dialect.error_status(Overloaded("")):  # not every protocol has a place for our codes
            return attrs.evolve(plain, code=Overloaded.code, failed_by=By.BOUND)
        return attrs.evolve(plain, failed_by=By.OURS)
    outcome = behind.bill or exchange.outcome
    error = None if outcome is None else outcome.error
    usage = None if outcome is None else outcome.usage
    return attrs.evolve(
        plain,
        code=None if error is None else error.code,
        failed_by=_failed_by(error),
        tries=FrozenMap(Counter(it.llm for it in exchange.attempts)),
        by_processors=FrozenMap(Counter(it.llm for it in exchange.child_attempts)),
        stood_in=_stood_in(exchange),
        passed_over=tuple(it.error.code for it in exchange.passed_over if it.error is not None),
        cost=None if outcome is None else outcome.cost,
        input_tokens=0 if usage is None else usage.input_tokens,
        output_tokens=0 if usage is None else usage.output_tokens,
    )


def _failed_by(error: ProxyError | None) -> By:
    if isinstance(error, Overloaded) or (error is not None and error.code == "llm_full"):
        return By.BOUND
    return By.PROVIDER if error is None or isinstance(error, UpstreamError) else By.OURS


def _stood_in(exchange: Exchange) -> bool:
    """Whether the last LLM that was asked is another than the first that was to be."""
    attempts = exchange.attempts
    meant = min((*exchange.passed_over, *attempts), key=lambda it: it.started_s, default=None)
    return bool(attempts) and meant is not None and meant.llm != attempts[-1].llm
