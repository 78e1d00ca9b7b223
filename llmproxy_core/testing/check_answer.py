"""What a processor makes of the answer: what the client hears, and what the call is billed."""

from __future__ import annotations

from collections.abc import Iterator

from llmproxy_core.dialect import Operation
from llmproxy_core.money import Money
from llmproxy_core.outcome import End
from llmproxy_core.testing.chunks import Chunked, byte_cuts, every_text_cut
from llmproxy_core.testing.declared import Declared
from llmproxy_core.testing.heard import REPLACED, differences
from llmproxy_core.testing.loop import in_own_loop
from llmproxy_core.testing.played import PRICE, Play
from llmproxy_core.testing.said import Said
from llmproxy_core.testing.stage import Run, Stage
from llmproxy_core.testing.stand import PROCESSOR, Stand
from llmproxy_core.testing.trial import call, chat_trials, completed, heard, must_complete, says, trials
from llmproxy_core.testing.verdict import NotConforming
from llmproxy_core.testing.ways import PULLED
from llmproxy_core.usage import Usage


def answers_as_declared(declared: Declared) -> None:
    """
    Of the answer only the declared aspects change: text, usage, finish reason, ids and tool calls survive.

    Without any aspect declared, the client gets the bytes that it would get without the processor.
    """
    stand = Stand(declared)
    in_own_loop(lambda: _answers(stand))


async def _answers(stand: Stand) -> None:
    declared = stand.declared
    for asked, way, said, play in chat_trials(stand):
        run = await completed(stand, asked, way, play)
        bare = await call(stand, asked, way, play, bare=True)
        got, expected = heard(declared, run), heard(declared, bare)
        if REPLACED in run.body.decode() and REPLACED not in said.text + said.reasoning:
            raise NotConforming(f"{way}: the client reads {REPLACED!r}: a character of several bytes was cut in two")
        if not run.main:
            continue  # an answer of its own: there is nothing to compare it with
        if found := differences(got, expected, declared.changes_answer):
            raise NotConforming(
                f"{way}: the answer changes in what is not declared (changes_answer):\n  " + "\n  ".join(found)
            )
        if not declared.changes_answer and run.body != bare.body:
            raise NotConforming(
                f"{way}: the answer says the same in other bytes: declare changes_answer = {{'spelling'}} when "
                f"that is meant:\n  {bare.body[:400]!r}\n  {run.body[:400]!r}"
            )


def answers_alike_however_it_is_cut(declared: Declared) -> None:
    """A stream says the same to the client wherever the network cut its bytes, and the model its words."""
    stand = Stand(declared)
    if Operation.CHAT in stand.operations:
        in_own_loop(lambda: _alike(stand))


async def _alike(stand: Stand) -> None:
    declared = stand.declared
    asked = next(asked for asked, way, *_ in chat_trials(stand) if way is PULLED)
    for said in declared.answers:
        usual = await completed(stand, asked, PULLED, says(declared, said, PULLED))
        expected = heard(declared, usual)
        for chunked in _cuts(stand, said, usual):
            run = await completed(stand, asked, PULLED, says(declared, said, PULLED, chunked))
            if found := differences(heard(declared, run), expected):
                raise NotConforming(
                    f"the answer depends on how the stream was cut ({chunked.how}):\n  " + "\n  ".join(found) + "\n"
                    "a filter must give the same output for any split of its text: hold back what it cannot decide yet"
                )
            if run.main and chunked.same_bytes and not declared.changes_answer and run.body != usual.body:
                raise NotConforming(f"the client's bytes depend on how the stream was cut ({chunked.how})")


def _cuts(stand: Stand, said: Said, usual: Run) -> Iterator[Chunked]:
    dialect, api = stand.declared.dialect, usual.asked.api
    assert api is not None
    yield from every_text_cut(said, dialect, api)
    yield from byte_cuts(said, dialect, api)


def bills_what_was_used(declared: Declared) -> None:
    """The exchange's usage and cost are those of all calls that were made for it, the processor's own included."""
    stand = Stand(declared)
    in_own_loop(lambda: _bills(stand))


async def _bills(stand: Stand) -> None:
    for asked, way, play in trials(stand):
        async with Stage(stand) as stage:
            run = await stage.call(asked, way, play)
            must_complete(stand.declared, run)
            await stage.leftovers()  # what goes on in the background is billed when it is over
            run.calls = stage.book.of(run.exchange)
            _belong(run)
            _are_bounded(stand, run)
            if asked.operation is Operation.CHAT:
                _are_billed(run, play)


def _belong(run: Run) -> None:
    if not all(made.belongs for made in run.calls):
        raise NotConforming(
            f"{run.where}: it calls an LLM in the name of an exchange of its own making, which nobody is billed "
            "for; use `async with exchange.child(request) as child`"
        )


def _are_bounded(stand: Stand, run: Run) -> None:
    own = sum(made.own for made in run.calls)
    table = stand.config().processors[PROCESSOR]
    bounds = table.type.extra_cost_bound(table.config, run.exchange.request)
    if own > len(bounds):
        raise NotConforming(
            f"{run.where}: it made {own} model calls of its own, its type declares {len(bounds)}: give the "
            "ProcessorType an extra_cost_bound, so that a cost limit can reserve for them"
        )


def _are_billed(run: Run, play: Play) -> None:
    if run.bill is None:
        raise NotConforming(f"{run.where}: the exchange was never billed: what it detached was not finished")
    used = [made.response.outcome for made in run.calls if made.response is not None]
    if any(outcome is None or outcome.end is not End.COMPLETED for outcome in used):
        return  # broken off: what it used is an estimate
    usage = sum((play.said.usage for _ in used), Usage()) if used else None
    cost = Money() if usage is None else PRICE.cost(usage)
    if run.bill.usage != usage or (run.bill.cost or Money()) != cost:
        raise NotConforming(
            f"{run.where}: the LLMs reported {usage} ({cost}), but the exchange is billed {run.bill.usage} "
            f"({run.bill.cost}); return the response that `call_next` gave, or finish it"
        )
