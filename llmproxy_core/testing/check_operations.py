"""What a processor acts on, and what it makes of the request."""

from __future__ import annotations

from llmproxy_core.dialect import Operation
from llmproxy_core.testing.asked import other
from llmproxy_core.testing.declared import Declared
from llmproxy_core.testing.loop import in_own_loop
from llmproxy_core.testing.played import Call, Play
from llmproxy_core.testing.said import Said
from llmproxy_core.testing.stage import Run
from llmproxy_core.testing.stand import Stand
from llmproxy_core.testing.trial import call, completed, trials
from llmproxy_core.testing.verdict import NotConforming
from llmproxy_core.testing.ways import PLAIN


def acts_on_its_operations(declared: Declared) -> None:
    """Every declared operation is answered, on every way; on others a skippable processor changes nothing."""
    stand = Stand(declared)
    in_own_loop(lambda: _acts(stand))


async def _acts(stand: Stand) -> None:
    tried = set[Operation]()
    for asked, way, play in trials(stand):
        tried.add(asked.operation)
        await completed(stand, asked, way, play)
    if not tried:
        wanted = ", ".join(sorted(stand.declared.processor_type.operations)) or "nothing"
        raise NotConforming(
            f"it acts on {wanted}, and of that the dialect {stand.declared.dialect.name} knows nothing that could be "
            "tried; declare another dialect, a sample, or the operations of the type"
        )
    if stand.declared.processor_type.skippable:
        await _is_left_out(stand)


async def _is_left_out(stand: Stand) -> None:
    for operation in stand.others:
        if operation is Operation.CHAT or (asked := other(stand.declared, operation)) is None:
            continue
        with_it = await completed(stand, asked, PLAIN, Play(Said()))
        without = await call(stand, asked, PLAIN, Play(Said()), bare=True)
        if with_it.body != without.body:
            raise NotConforming(f"it changes the answer of {operation}, which it is not declared to act on")


def sends_what_was_asked(declared: Declared) -> None:
    """Without `changes_request` the LLM gets the very bytes that the client sent, and its headers."""
    stand = Stand(declared)
    in_own_loop(lambda: _sends(stand))


async def _sends(stand: Stand) -> None:
    for asked, way, play in trials(stand):
        run = await completed(stand, asked, way, play)
        bare = await call(stand, asked, way, play, bare=True)
        for sent in run.main:
            _compare(stand.declared, run, sent, bare.main[0])


def _compare(declared: Declared, run: Run, sent: Call, expected: Call) -> None:
    if declared.changes_request or (sent.body == expected.body and sent.headers == expected.headers):
        return
    what = "the request's body" if sent.body != expected.body else "the request's headers"
    raise NotConforming(
        f"{run.where}: it changes {what}: {expected.body[:300]!r} became {sent.body[:300]!r}; "
        "declare changes_request = True when that is meant"
    )
