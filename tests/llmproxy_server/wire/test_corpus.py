"""The hostile corpus: what is no plain HTTP/1.1 is refused, once and in our form; what is, is passed on as meant."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from tests.llmproxy_server.wire.corpus import CORPUS
from tests.llmproxy_server.wire.judge import Sent, check, sent
from tests.llmproxy_server.wire.rows import Row
from tests.llmproxy_server.wire.strict import Malformed, read, read_all
from tests.page_first import PAGE, open_page
from tests.proxy import Proxy
from tests.rawclient import opening


def _uvloop() -> Callable[[], asyncio.AbstractEventLoop]:
    return pytest.importorskip("uvloop").new_event_loop  # type: ignore[no-any-return]


@pytest.fixture(scope="module", params=["asyncio", "uvloop", "page"])
def told(request: pytest.FixtureRequest) -> Iterator[Sent]:
    """What became of every row, sent in one write, on both event loops; and behind a page, which aiohttp shows."""
    if request.param == "page":
        opening.first, Proxy.pages = open_page, [PAGE]
    yield sent(CORPUS.values(), loop_factory=None if request.param == "asyncio" else _uvloop())
    opening.first, Proxy.pages = None, ()


@pytest.mark.parametrize("row", CORPUS.values(), ids=CORPUS)
def test_a_row_is_read_as_it_is_meant(row: Row, told: Sent) -> None:
    check(row, told[row.name])


def test_the_corpus_is_large_and_has_all_kinds() -> None:
    assert len(CORPUS) >= 800
    assert sum(bool(row.refused) for row in CORPUS.values()) >= 500
    assert sum(bool(row.meant) for row in CORPUS.values()) >= 150


# -- the strict reader, by which the others are judged ---------------------------------------------------------------


@pytest.mark.parametrize("row", [row for row in CORPUS.values() if not row.refused], ids=lambda row: row.name)
def test_the_strict_reader_reads_what_is_meant(row: Row) -> None:
    """More of it, where the connection ends before."""
    found, malformed = read_all(row.data)

    got = [(request.method, request.target, request.body) for request in found[: len(row.meant)]]
    assert got == [(meant.method, meant.target, meant.body) for meant in row.meant]
    assert malformed is None or row.closes


SYNTAX = ("name: ", "value: ", "lines: ", "version: ", "line: ", "chunk: ", "both: ", "host: two that")
"""Kinds that break the grammar, not a bound or a rule of ours."""


@pytest.mark.parametrize(
    "row",
    [row for row in CORPUS.values() if row.refused and row.name.startswith(SYNTAX) and not row.why],
    ids=lambda row: row.name,
)
def test_the_strict_reader_refuses_what_breaks_the_grammar(row: Row) -> None:
    try:
        found = read(row.data)
    except Malformed:
        return
    assert found is None, found
