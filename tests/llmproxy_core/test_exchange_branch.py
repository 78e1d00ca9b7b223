"""A branch is its exchange for one of several LLMs that are asked at the same time."""

from __future__ import annotations

from llmproxy_core import End, Money, Outcome, Reply, Tasks
from llmproxy_core.dialect import ReplyHead
from tests.llmproxy_core.conversation import CHAT, COST, DIALECT, PRICE, USED, exchange, opened, own_request, whole


async def test_a_branch_ends_with_its_exchange(tasks: Tasks) -> None:
    call = exchange(tasks)
    branch = call.branch()
    stream, body = opened(branch, tasks, b"never read")

    call.finish(End.ABANDONED)
    late, late_body = opened(branch, tasks, b"never read")
    call.join(branch)

    assert [it.outcome and it.outcome.end for it in (stream, late)] == [End.ABANDONED, End.ABANDONED]
    assert (body.ends, late_body.ends) == (1, 1)


async def test_a_branch_of_an_exchange_that_is_over_is_over(tasks: Tasks) -> None:
    call = exchange(tasks)
    call.finish(End.ABANDONED)

    assert call.branch().outcome is not None


async def test_what_was_asked_of_a_branch_that_won_is_told_when_its_exchange_ends(tasks: Tasks) -> None:
    call, ends = exchange(tasks), list[Outcome]()
    branch = call.branch()
    branch.on_finish(ends.append)
    branch.on_billed(ends.append)
    branch.child(own_request())
    stream, _ = opened(branch, tasks, b"read")

    call.join(branch)
    assert ends == []
    assert stream.outcome is None
    call.finish(End.COMPLETED)

    assert ends == [call.outcome, call.outcome]
    assert stream.outcome is not None


async def test_attempts_of_branches_are_seen_while_they_are_made_and_the_last_is_the_winners(tasks: Tasks) -> None:
    call = exchange(tasks)
    before, won, lost = call.attempt("before", None), call.attempt("won", None), call.attempt("lost", None)
    call.attempts.append(before)
    left, right = call.branch(), call.branch()

    left.attempts.append(won)
    right.attempts.append(lost)

    assert [it.llm for it in call.attempts] == ["before", "won", "lost"]
    assert left.attempts == [won]
    call.join(right, lost=True)
    call.join(left)
    assert [it.llm for it in call.attempts] == ["before", "lost", "won"]


async def test_both_branches_are_in_the_cost_and_the_winner_tells_the_rest(tasks: Tasks) -> None:
    call = exchange(tasks)
    left, right = call.branch(), call.branch()
    for branch, model in ((left, "won"), (right, "lost")):
        reply = Reply(branch, whole("hi"), dialect=DIALECT, api=CHAT, price=PRICE, head=ReplyHead(USED, model), llm="a")
        branch.response_headers.append(("x-llmproxy-changed", model))
        branch.log_fields["changed"] = model
        branch.pass_over(branch.attempt(model, None))
        if branch is left:
            reply.finish(End.COMPLETED)

    assert call.cost_so_far() == Money(2 * COST)
    call.join(right, lost=True)
    call.join(left)
    call.finish(End.COMPLETED)

    assert call.outcome is not None
    assert (call.outcome.cost, call.outcome.model) == (Money(2 * COST), "won")
    assert call.response_headers == [("x-llmproxy-changed", "won")]
    assert call.log_fields == {"changed": "won"}
    assert [it.llm for it in call.passed_over] == ["lost", "won"]
