"""Readers that come, read and go in any order: each gets a beginning of the whole, and one end."""

from __future__ import annotations

import asyncio

import attrs
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core import (
    End,
    Shared,
    Tasks,
    UpstreamCut,
)
from tests.llmproxy_core.conversation import (
    ERROR_EVENT,
    SOON_S,
    events,
)
from tests.llmproxy_core.sharing import LONG, PLENTY, Chunk, Reading, Source, turns, until_idle


@attrs.frozen
class Step:
    """What happens next: one joins; reader *who* asks for a piece, waits no longer for one, or leaves; time passes."""

    verb: str
    who: int = 0


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(["join", "join gone", "read", "read", "read", "give up", "leave", "turn"]),
        st.integers(0, 5),
    ),
    max_size=60,
)
scripts = st.tuples(
    st.lists(st.sampled_from([*LONG[:3], *events("tiny")[:1], b": ping\n\n"]), max_size=8),
    st.sampled_from(["end", "end", "cut", "error event", "early", "stall"]),
)


class Model:
    """Readers that come, read and go, and what must hold of them all."""

    def __init__(self, source: Source, shared: Shared, wire: bytes, *, proper: bool) -> None:
        self.source = source
        self.shared = shared
        self.wire = wire
        self.proper = proper
        self.readers: list[Reading] = []
        self.reads: dict[int, asyncio.Task[bytes]] = {}

    async def take(self, step: Step) -> None:
        match step.verb:
            case "join" if self.shared.open:
                owner = self.source.another() if self.readers else self.source.first
                self.readers.append(Reading(self.shared, owner))
            case "join gone" if self.shared.open:
                gone = self.source.another()
                gone.finish(End.ABANDONED)
                self.shared.join(gone)
            case "turn":
                await turns(3)
            case "read" | "give up" | "leave" if self.readers:
                await self._of(step.who % len(self.readers), step.verb)
            case _:
                pass

    async def _of(self, who: int, verb: str) -> None:
        reader, read = self.readers[who], self.reads.get(who)
        if verb == "read" and not reader.ends and (read is None or read.done()):
            self.reads[who] = asyncio.get_running_loop().create_task(reader.next())
            await turns(2)
        elif verb == "give up" and read is not None:
            await stopped(read)  # its generator is over with it: it can only leave
            reader.leave()
        elif verb == "leave":
            if read is not None:
                await stopped(read)
            reader.leave()

    async def end(self) -> None:
        """Half of those who are left go, the others read to the end."""
        left = [(who, it) for who, it in enumerate(self.readers) if not it.ends]
        for who, reader in left[1::2]:
            if (read := self.reads.get(who)) is not None:
                await stopped(read)
            reader.leave()
        rest = [self.rest(who, reader) for who, reader in left[::2]]
        await asyncio.gather(*rest)
        self.shared.close()

    async def rest(self, who: int, reader: Reading) -> None:
        if (read := self.reads.get(who)) is not None:
            await read
        await reader.rest()

    def check(self) -> None:
        for reader in self.readers:
            assert self.wire.startswith(reader.got)
            (outcome,) = reader.ends
            if outcome.end is End.COMPLETED:
                assert reader.got == self.wire
                assert self.proper
            elif outcome.end is End.FAILED:
                assert reader.got == self.wire
                assert not self.proper
            else:
                assert outcome.end is End.ABANDONED
        (outcome,) = self.source.ends
        assert self.source.body.ends == 1
        assert outcome.end in (End.COMPLETED, End.FAILED, End.ABANDONED)
        if any(reader.ends[0].end is End.COMPLETED for reader in self.readers):
            assert outcome.end is End.COMPLETED


async def stopped(read: asyncio.Task[bytes]) -> None:
    read.cancel()
    await asyncio.wait([read])


@given(scripts, steps, st.sampled_from([PLENTY, 1000, 1]))
def test_in_any_order_each_gets_a_beginning_of_the_whole_and_one_end(
    script: tuple[list[bytes], str], steps: list[Step], max_bytes: int
) -> None:
    async def scenario() -> None:
        tasks = Tasks()
        middle, ending = script
        gate = asyncio.Event()
        last: dict[str, list[Chunk]] = {
            "end": list(events()),
            "stall": [gate, *events()],
            "cut": [UpstreamCut("reset")],
            "error event": [ERROR_EVENT],
            "early": [],
        }
        chunks: list[Chunk] = [*middle, *last[ending]]
        wire = b"".join(it for it in chunks if isinstance(it, bytes) and it is not ERROR_EVENT)
        source = Source(tasks, *chunks)
        model = Model(source, await source.shared(max_bytes), wire, proper=ending in ("end", "stall"))
        async with asyncio.timeout(SOON_S):
            for step in steps:
                await model.take(step)
            gate.set()
            await model.end()
            source.first.finish(End.ABANDONED)
            await until_idle(tasks)
        model.check()

    asyncio.run(scenario())
