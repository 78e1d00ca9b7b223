"""However the bytes of a connection come, the verdict is the same."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from tests.answers import pieces
from tests.llmproxy_server.wire.corpus import CORPUS
from tests.llmproxy_server.wire.judge import Sent, check, sent
from tests.llmproxy_server.wire.rows import Row

SHORT_BYTES = 320
SOME = {
    name: row
    for number, (name, row) in enumerate(CORPUS.items())
    if len(row.data) <= SHORT_BYTES and (number % 3 == 0 or name.startswith("before"))
}
"""A selection: each of these bytes is a read of its own."""


def at_random(seed: int) -> Callable[[bytes], list[bytes]]:
    """Cuts bytes at a few places, others for each row, the same ones each time."""
    random = Random(seed)

    def cut(data: bytes) -> list[bytes]:
        return pieces(data, [random.randrange(len(data) + 1) for _ in range(random.randint(1, 6))])

    return cut


@pytest.fixture(scope="module")
def byte_by_byte() -> Sent:
    return sent(SOME.values(), lambda data: pieces(data, "bytes"))


@pytest.fixture(scope="module", params=[1, 2, 3])
def cut_at_random(request: pytest.FixtureRequest) -> Sent:
    return sent(CORPUS.values(), at_random(request.param))


@pytest.mark.parametrize("row", SOME.values(), ids=SOME)
def test_byte_by_byte_a_row_is_read_the_same(row: Row, byte_by_byte: Sent) -> None:
    check(row, byte_by_byte[row.name])


@pytest.mark.parametrize("row", CORPUS.values(), ids=CORPUS)
def test_cut_anywhere_a_row_is_read_the_same(row: Row, cut_at_random: Sent) -> None:
    check(row, cut_at_random[row.name])
