"""What has to hold of each row of the corpus, however its bytes were sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from llmproxy_core.headers import HOP_BY_HOP
from tests.llmproxy_server.wire.ours import Answer, Edge, Told
from tests.llmproxy_server.wire.rows import MARK, Meant, Row
from tests.llmproxy_server.wire.strict import Request

Sent = Mapping[str, Told | Exception]
_OURS_ALONE = (HOP_BY_HOP | {"expect"}) - {"connection", "transfer-encoding"}


async def send(rows: Iterable[Row], cut: Callable[[bytes], Iterable[bytes]] = lambda data: [data]) -> Sent:
    """Each row on a connection of its own, *cut* into pieces; what became of it, or the error that it ended in."""
    told: dict[str, Told | Exception] = {}
    async with Edge() as edge:
        for row in rows:
            heads = [meant.method for meant in row.meant]
            try:
                told[row.name] = await edge.tell(cut(row.data), probe=not row.ends, heads=heads)
            except (ValueError, OSError, TimeoutError) as error:  # one row's, and told as such
                told[row.name] = error
    return told


def sent(
    rows: Iterable[Row],
    cut: Callable[[bytes], Iterable[bytes]] = lambda data: [data],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> Sent:
    """`send` in an event loop of its own."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(send(rows, cut))


def check(row: Row, told: Told | Exception) -> None:
    """AssertionError when *told* is not what *row* says."""
    if isinstance(told, Exception):
        raise told
    assert not told.faults
    assert [taken(request) for request in told.requests] == [taken(it) for it in row.meant], told.answers
    for request, headers, meant in zip(told.requests, told.seen, row.meant, strict=True):
        assert {name: headers.get_all(name) for name in meant.headers} == _as_lists(meant)
        assert not [name for name, _ in request.headers if name in _OURS_ALONE]
    count = len(row.meant)
    assert [answer.status for answer in told.answers[:count]] == [200] * count
    rest = told.answers[count:]
    assert told.unfinished == 0
    if row.refused:
        _check_refusal(row, told, rest)
    elif row.ends:
        assert len(rest) <= 1
        assert all(400 <= answer.status < 500 for answer in rest)
    else:
        _check_kept(row, told, rest)


def taken(request: Request | Meant) -> tuple[str, str, bytes]:
    """What of a request is compared. A query without a character is none to us (RFC 3986 section 6.2.3 has it so)."""
    target = request.target
    return request.method, target[:-1] if target.find("?") == len(target) - 1 else target, request.body


def _as_lists(meant: Meant) -> dict[str, list[str]]:
    return {name: [] if value is None else [value] for name, value in meant.headers.items()}


def _check_refusal(row: Row, told: Told, rest: tuple[Answer, ...]) -> None:
    """One answer in the form of an error, without a word of what was sent, and the connection is over."""
    assert [answer.status for answer in rest] in [[status] for status in row.refused]
    refusal = rest[0]
    assert refusal.header("content-type") == "application/json"
    assert refusal.json["error"]["message"]
    assert refusal.header("x-request-id")
    assert refusal.header("connection") == "close"
    assert MARK not in told.raw
    assert not told.probed


def _check_kept(row: Row, told: Told, rest: tuple[Answer, ...]) -> None:
    """What follows is served, unless the connection was to end, which its last answer then says."""
    last = told.answers[len(row.meant) - 1]
    closed = last.header("connection") == "close"
    assert row.closes in (closed, None)
    assert told.probed is not closed
    assert [answer.status for answer in rest] == ([] if closed else [200])
