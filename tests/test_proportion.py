"""
Long requests and answers take time in proportion to their length, whatever protocol they come in and go out in.

One call of a megabyte must not stop the process for all others: a translation happens in one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

import attrs
import pytest

from llmproxy_core import Api, BadRequest, Channel, Dialect, Frame, Operation, TextFilter, Translation
from llmproxy_core.chat import ChatEvent, ChatReply, ChatRequest, Message, TextPart, changed
from llmproxy_core.plugins import Registry
from llmproxy_core.reply_events import Assembler
from llmproxy_core.stages import Filtering, apply_to_events, apply_to_reply
from tests.long_answers import ANSWERS
from tests.long_histories import HISTORIES, history
from tests.proportion import LARGE, MOST, SMALL, times_as_long

pytestmark = pytest.mark.repeats  # and what is timed is the work, without who measures its coverage

DIALECTS = {
    name: dialect
    for name, dialect in Registry.load().dialects.items()
    if dialect.api_for(Operation.CHAT, stream=False) is not None
}
# -- requests ----------------------------------------------------------------------------------------------------------

MODELS = {"gemini": "gemini-3-pro"}
"""The model that is asked for, where one has more rules than others: this one wants the first call of a turn signed."""


def chat_api(dialect: Dialect, *, stream: bool = False) -> Api:
    found = dialect.api_for(Operation.CHAT, stream=stream)
    assert found is not None
    return found


def test_there_are_long_histories_of_every_protocol() -> None:
    assert set(HISTORIES) == set(DIALECTS)


def _read(client: str, body: bytes) -> ChatRequest:
    return DIALECTS[client].read_chat(chat_api(DIALECTS[client]), body)


def _written(upstream: str, chat: ChatRequest) -> Callable[[], object]:
    """Writes *chat*, read from another protocol, for *upstream*; or refuses it, as some do results that come late."""
    dialect, asked = DIALECTS[upstream], changed(chat, model=MODELS.get(upstream, "m"))

    def write() -> None:
        with suppress(BadRequest):
            dialect.write_chat(chat_api(dialect), asked, Translation(drops=True, max_output_tokens=9))

    return write


def _written_again(client: str, chat: ChatRequest) -> Callable[[], object]:
    """Writes *chat*, before which a processor has put a message, in the protocol that it was read from."""
    more = attrs.evolve(chat, messages=(Message("user", (TextPart("More"),)), *chat.messages))
    return lambda: DIALECTS[client].write_chat(chat_api(DIALECTS[client]), more)


@pytest.mark.parametrize(
    ("client", "what"), [(client, what) for client, histories in HISTORIES.items() for what in histories]
)
def test_a_long_history_takes_time_in_proportion_for_every_provider(client: str, what: str) -> None:
    small, large = history(client, what, SMALL), history(client, what, LARGE)
    short, long = _read(client, small), _read(client, large)

    ratios = {"read": times_as_long(lambda: _read(client, small), lambda: _read(client, large))}
    ratios["again"] = times_as_long(_written_again(client, short), _written_again(client, long))
    for upstream in DIALECTS.keys() - {client}:
        ratios[upstream] = times_as_long(_written(upstream, short), _written(upstream, long))

    assert {where: ratio for where, ratio in ratios.items() if ratio > MOST} == {}


# -- answers -----------------------------------------------------------------------------------------------------------


class _Upper:
    """A filter that changes all that it is given."""

    def feed(self, text: str) -> str:
        return text.upper()

    def flush(self) -> str:
        return ""


def _filter(channel: Channel) -> TextFilter:
    return _Upper()


def _streamed(name: str, events: Sequence[ChatEvent]) -> bytes:
    writer = DIALECTS[name].writer(chat_api(DIALECTS[name], stream=True), usage=True)
    return b"".join([writer.write([event], None) for event in events])


def _frames(name: str, data: bytes) -> list[Frame]:
    reader = DIALECTS[name].reader(chat_api(DIALECTS[name], stream=True))
    return reader.feed(data) + reader.end()


def _translated(name: str, frames: Sequence[Frame]) -> bytes:
    """What a client of another protocol is sent of *frames*."""
    writer = DIALECTS[name].writer(chat_api(DIALECTS[name], stream=True), usage=True)
    return b"".join([writer.write(frame.events, None) for frame in frames])


def _filtered(name: str, frames: Sequence[Frame]) -> bytes:
    """What a client of the same protocol is sent, past a filter."""
    writer, stage = DIALECTS[name].writer(chat_api(DIALECTS[name], stream=True), usage=True), Filtering(_filter)
    return b"".join([writer.write(apply_to_events(stage, frame.events), frame) for frame in frames])


def _whole(frames: Sequence[Frame]) -> ChatReply:
    assembler = Assembler()
    for frame in frames:
        assembler.feed(frame.events)
    return assembler.reply()


@attrs.frozen
class Answered:
    """An answer of one provider, of one size: its bytes and what they mean."""

    upstream: str
    events: Sequence[ChatEvent]
    data: bytes
    frames: Sequence[Frame]
    body: bytes
    reply: ChatReply

    @classmethod
    def of(cls, upstream: str, what: str, count: int) -> Answered:
        events = ANSWERS[what](count)
        data = _streamed(upstream, events)
        frames = _frames(upstream, data)
        dialect = DIALECTS[upstream]
        body = dialect.write_reply(chat_api(dialect), _whole(frames))
        return cls(upstream, events, data, frames, body, dialect.read_reply(chat_api(dialect), body))

    def work(self) -> Mapping[str, Callable[[], object]]:
        """All that may happen to it, by its name."""
        name, dialect = self.upstream, DIALECTS[self.upstream]
        api = chat_api(dialect)
        found: dict[str, Callable[[], object]] = {
            "write its stream": lambda: _streamed(name, self.events),
            "read its stream": lambda: _frames(name, self.data),
            "filter its stream": lambda: _filtered(name, self.frames),
            "put its stream together": lambda: _whole(self.frames),
            "read it": lambda: dialect.read_reply(api, self.body),
            "filter it": lambda: dialect.write_reply(api, apply_to_reply(Filtering(_filter), self.reply)),
        }
        for client in DIALECTS.keys() - {name}:
            found[f"stream it to {client}"] = partial(_translated, client, self.frames)
            found[f"give it to {client}"] = partial(
                DIALECTS[client].write_reply, chat_api(DIALECTS[client]), self.reply
            )
        return found


@pytest.mark.parametrize("what", ANSWERS)
@pytest.mark.parametrize("upstream", DIALECTS)
def test_a_long_answer_takes_time_in_proportion_for_every_client(upstream: str, what: str) -> None:
    small, large = Answered.of(upstream, what, SMALL).work(), Answered.of(upstream, what, LARGE).work()

    ratios = {name: times_as_long(small[name], large[name]) for name in small}

    assert {name: ratio for name, ratio in ratios.items() if ratio > MOST} == {}
