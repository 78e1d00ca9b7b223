"""
Ours beside nginx and aiohttp: it is never laxer than the stricter of the two, and where stricter than both, says why.

Never laxer: what ours passes on both took as well, and all three took it for the same request.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import attrs
import pytest

from tests.llmproxy_server.wire.corpus import CORPUS
from tests.llmproxy_server.wire.judge import Sent, send, taken
from tests.llmproxy_server.wire.others import Other, bare_aiohttp, nginx
from tests.llmproxy_server.wire.ours import Told
from tests.llmproxy_server.wire.rows import Row
from tests.llmproxy_server.wire.strict import Request
from tests.needs import need_program


@attrs.frozen
class Verdicts:
    """What each server made of all rows."""

    ours: Sent
    nginx: dict[str, list[Request]]
    aiohttp: dict[str, list[Request]]


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Verdicts:
    program = need_program("nginx", package="nginx")
    return asyncio.run(_ask_all(program, tmp_path_factory.mktemp("nginx")))


async def _ask_all(program: str, folder: Path) -> Verdicts:
    async with nginx(program, folder) as other, bare_aiohttp() as bare:
        return Verdicts(await send(CORPUS.values()), await _ask(other), await _ask(bare))


async def _ask(other: Other) -> dict[str, list[Request]]:
    return {row.name: await other.tell(row.data) for row in CORPUS.values()}


def _ours(verdicts: Verdicts, row: Row) -> list[Request]:
    told = verdicts.ours[row.name]
    assert isinstance(told, Told), told
    return list(told.requests)


@pytest.mark.parametrize("row", CORPUS.values(), ids=CORPUS)
def test_ours_is_never_laxer_than_the_stricter_of_both(row: Row, verdicts: Verdicts) -> None:
    ours = [taken(request) for request in _ours(verdicts, row)]

    for other in (verdicts.nginx[row.name], verdicts.aiohttp[row.name]):
        assert [taken(request) for request in other[: len(ours)]] == ours


@pytest.mark.parametrize(
    "row", [row for row in CORPUS.values() if row.refused], ids=[row.name for row in CORPUS.values() if row.refused]
)
def test_a_verdict_stricter_than_both_has_its_reason(row: Row, verdicts: Verdicts) -> None:
    """A reason may stand where nginx refuses too: its versions differ from machine to machine, aiohttp's do not."""
    count = len(_ours(verdicts, row))
    nginx_takes, aiohttp_takes = len(verdicts.nginx[row.name]) > count, len(verdicts.aiohttp[row.name]) > count

    if nginx_takes and aiohttp_takes:
        assert row.why, "nginx and aiohttp take it: why do we not?"
    if not aiohttp_takes:
        assert not row.why, "aiohttp refuses it too, so no reason is needed any more"


def test_the_two_others_were_asked_in_earnest(verdicts: Verdicts) -> None:
    """They take what is plain, and differ in what is not: else the comparison would say nothing."""
    both = [row.name for row in CORPUS.values() if row.refused]
    only_nginx = [name for name in both if verdicts.nginx[name] and not verdicts.aiohttp[name]]
    only_aiohttp = [name for name in both if verdicts.aiohttp[name] and not verdicts.nginx[name]]
    plain = [row.name for row in CORPUS.values() if row.meant and not row.refused]

    assert all(verdicts.nginx[name] and verdicts.aiohttp[name] for name in plain)
    assert len(only_nginx) > 30
    assert len(only_aiohttp) > 10
