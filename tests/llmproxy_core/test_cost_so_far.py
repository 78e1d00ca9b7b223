"""What a call has cost while it goes on: told by the provider, or estimated from what was read."""

import pytest

from llmproxy_core import End, Exchange, Money, Price, Reply, Stream, Tasks, Usage
from llmproxy_core.dialect import ReplyHead
from llmproxy_core.token_estimate import Tokenizer
from tests.llmproxy_core.bodies import a_stream
from tests.llmproxy_core.conversation import CHAT, DIALECT, exchange, own_request

PRICE = Price(1_000_000_000, 2_000_000_000)  # 1000 and 2000 nanodollars a token


def begun(tasks: Tasks, *, price: Price | None = PRICE, of: Exchange | None = None) -> Stream:
    """A stream of which 10 tokens were read."""
    body = a_stream(tasks)[0].body
    response = Stream(of or exchange(tasks), body, dialect=DIALECT, api=CHAT, llm="x", price=price)

    def read(tokenizer: Tokenizer) -> int:
        return 10

    response.output_tokens = read
    return response


def answered(of: Exchange, usage: Usage, *, price: Price | None = PRICE) -> Reply:
    made = Reply(of, b"{}", dialect=DIALECT, api=CHAT, head=ReplyHead(usage), llm="x", price=price)
    made.finish(End.COMPLETED)
    return made


async def test_what_was_read_is_counted_while_the_provider_has_told_nothing(tasks: Tasks) -> None:
    response = begun(tasks)

    cost = response.cost_so_far()

    assert cost is not None
    assert cost > Money(10 * 2_000)  # and the question
    assert response.usage is None  # asking changes nothing


@pytest.mark.parametrize(("told", "counted"), [(1, 10), (12, 12)], ids=["at its beginning", "at its end"])
async def test_of_what_was_told_and_what_was_read_the_larger_counts(tasks: Tasks, told: int, counted: int) -> None:
    """Some providers tell the question and one token of the answer at once, and the rest when it is over."""
    response = begun(tasks)
    response.usage = Usage(25, told)

    assert response.cost_so_far() == Money(25 * 1_000 + counted * 2_000)
    assert response.usage == Usage(25, told)


async def test_nobody_knows_the_cost_without_a_price(tasks: Tasks) -> None:
    response = begun(tasks, price=None)

    assert response.cost_so_far() is None
    assert response.exchange.cost_so_far() is None


async def test_the_answer_to_anothers_call_costs_nothing(tasks: Tasks) -> None:
    own = exchange(tasks)
    joined = Stream(own, begun(tasks).body, dialect=DIALECT, api=CHAT, llm="x", billed=False)

    assert joined.cost_so_far() == Money()
    assert own.cost_so_far() == Money()


async def test_an_exchange_sums_up_its_answers_its_children_and_what_it_detached(tasks: Tasks) -> None:
    root = exchange(tasks)
    answered(root, Usage(1, 0))
    over, open_ = root.child(own_request()), root.child(own_request())
    answered(over, Usage(10, 0))
    over.finish(End.COMPLETED)
    answered(open_, Usage(100, 0))
    detached, ended = root.detach(own_request()), root.detach(own_request())
    begun(tasks, of=detached).usage = Usage(1_000, 10)
    answered(ended, Usage(10_000, 0))
    ended.finish(End.COMPLETED)

    assert root.cost_so_far() == Money(11_111 * 1_000 + 10 * 2_000)


async def test_an_exchange_that_is_over_goes_on_counting_what_it_detached(tasks: Tasks) -> None:
    root = exchange(tasks)
    answered(root, Usage(1, 0))
    flight = root.detach(own_request())
    begun(tasks, of=flight).usage = Usage(10, 10)
    root.finish(End.ABANDONED)

    assert root.cost_so_far() == Money(11 * 1_000 + 10 * 2_000)

    flight.finish(End.COMPLETED)

    assert root.cost_so_far() == Money(11 * 1_000 + 10 * 2_000)


async def test_a_child_that_used_nothing_hides_no_cost_and_one_without_a_price_does(tasks: Tasks) -> None:
    root = exchange(tasks)
    root.child(own_request()).finish(End.FAILED)
    answered(root, Usage(1, 0))
    assert root.cost_so_far() == Money(1_000)

    answered(root, Usage(1, 0), price=None)

    assert root.cost_so_far() is None
