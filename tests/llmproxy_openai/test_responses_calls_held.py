"""Calls of a response, several at a time, whose arguments a filter holds or changes."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from llmproxy_core.chat import (
    ChatEvent,
    End,
    Finish,
    Finished,
    FinishReason,
    Start,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    UsageReported,
)
from llmproxy_core.stages import Filtering, apply_to_events
from llmproxy_core.testing.grammar import check_stream
from llmproxy_core.text import Channel, TextFilter
from llmproxy_core.usage import Usage
from llmproxy_openai.responses import ResponsesDialect
from llmproxy_openai.responses.paths import CREATE

DIALECT = ResponsesDialect()
ARGUMENTS = (('{"a":', "1}"), ('{"b":', "2}"))
WHOLE = tuple("".join(pieces) for pieces in ARGUMENTS)
RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "in_progress",
    "model": "m",
    "output": [],
    "error": None,
    "incomplete_details": None,
    "usage": None,
}
USAGE = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}


class Holding:
    """Holds all of a text to its end."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        self._held += text
        return ""

    def flush(self) -> str:
        return self._held.upper()


class Upper:
    """Changes each piece at once."""

    def feed(self, text: str) -> str:
        return text.upper()

    def flush(self) -> str:
        return ""


class Provider:
    """A stream of two calls, as the provider tells it."""

    def __init__(self) -> None:
        self._out: list[bytes] = []

    def tell(self, kind: str, **members: Any) -> None:
        data = json.dumps({"type": kind, "sequence_number": len(self._out), **members})
        self._out.append(f"event: {kind}\ndata: {data}\n\n".encode())

    def add(self, call: int) -> None:
        self.tell("response.output_item.added", output_index=call, item=item(call, "", "in_progress"))

    def piece(self, call: int, piece: int) -> None:
        place = {"item_id": f"fc_{call}", "output_index": call}
        self.tell("response.function_call_arguments.delta", **place, delta=ARGUMENTS[call][piece])

    def done(self, call: int) -> None:
        place = {"item_id": f"fc_{call}", "output_index": call}
        self.tell("response.function_call_arguments.done", **place, arguments=WHOLE[call])
        self.tell("response.output_item.done", output_index=call, item=item(call, WHOLE[call]))

    def stream(self, *, mixed: bool) -> bytes:
        self.tell("response.created", response=RESPONSE)
        self.tell("response.in_progress", response=RESPONSE)
        steps: list[tuple[Callable[..., None], tuple[int, ...]]] = []
        for call in range(2):
            steps += [(self.add, (call,)), (self.piece, (call, 0)), (self.piece, (call, 1)), (self.done, (call,))]
        if mixed:  # each step of the one call, then the same of the other
            steps = [step for pair in zip(steps[:4], steps[4:], strict=True) for step in pair]
        for step, at in steps:
            step(*at)
        output = [item(call, WHOLE[call]) for call in range(2)]
        self.tell("response.completed", response=RESPONSE | {"status": "completed", "output": output, "usage": USAGE})
        return b"".join(self._out)


def item(call: int, arguments: str, status: str = "completed") -> dict[str, Any]:
    ids = {"id": f"fc_{call}", "call_id": f"call_{call}", "name": f"tool_{call}"}
    return {"type": "function_call", "status": status, "arguments": arguments, "x_new": call, **ids}


def filtered(stream: bytes, make: Callable[[Channel], TextFilter | None]) -> bytes:
    reader, writer, stage = DIALECT.reader(CREATE), DIALECT.writer(CREATE, usage=True), Filtering(make)
    frames = [*reader.feed(stream), *reader.end()]
    return b"".join(writer.write(apply_to_events(stage, frame.events), frame) for frame in frames)


def data_in(stream: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in stream.splitlines() if line.startswith(b"data: ")]


def only(make: Callable[[], TextFilter], *calls: int) -> Callable[[Channel], TextFilter | None]:
    return lambda channel: make() if channel.kind == "arguments" and channel.index in calls else None


@pytest.mark.parametrize("mixed", [False, True], ids=["one-after-the-other", "mixed"])
@pytest.mark.parametrize("make", [Holding, Upper])
@pytest.mark.parametrize("calls", [(0,), (1,), (0, 1)], ids=["the-first", "the-second", "both"])
def test_what_is_held_of_calls_goes_to_their_own_items(
    calls: tuple[int, ...], make: Callable[[], TextFilter], mixed: bool
) -> None:
    stream = Provider().stream(mixed=mixed)
    out = filtered(stream, only(make, *calls))

    said = [WHOLE[call].upper() if call in calls else WHOLE[call] for call in range(2)]
    told = data_in(out)
    assert told[-1]["response"]["output"] == [item(call, said[call]) for call in range(2)]
    pieces, ended = ["", ""], [0, 0]
    for event in told:
        if (item_id := event.get("item_id")) is not None:
            assert item_id == f"fc_{event['output_index']}"
        if event["type"] == "response.function_call_arguments.delta":
            pieces[event["output_index"]] += event["delta"]
        elif event["type"] == "response.function_call_arguments.done":
            assert event["arguments"] == said[event["output_index"]] == pieces[event["output_index"]]
        elif event["type"] == "response.output_item.done":
            assert event["item"] == item(event["output_index"], said[event["output_index"]])
            ended[event["output_index"]] += 1
    assert ended == [1, 1]
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    if not mixed:  # items that are mixed are the provider's own fault
        assert check_stream("openai-responses", out, strict=False) == []


def test_calls_that_nobody_changes_keep_their_bytes_mixed_or_not() -> None:
    for mixed in (False, True):
        stream = Provider().stream(mixed=mixed)
        assert filtered(stream, lambda _: None) == stream


def test_calls_of_another_provider_that_come_mixed_are_told_one_after_the_other() -> None:
    writer = DIALECT.writer(CREATE, usage=True)
    events: list[ChatEvent] = [Start("r", "m"), TextDelta(0, "a")]
    events += [ToolCallStart(0, call, f"call_{call}", f"tool_{call}") for call in range(2)]
    events += [ToolCallDelta(0, call, ARGUMENTS[call][piece]) for piece in range(2) for call in range(2)]
    events += [Finished(0, Finish(FinishReason.TOOL_CALLS)), UsageReported(Usage(5, 3)), End()]
    out = b"".join(writer.write([event], None) for event in events)

    assert check_stream("openai-responses", out) == []
    told = data_in(out)
    assert [item.get("arguments") for item in told[-1]["response"]["output"]] == [None, *WHOLE]
    deltas = [event for event in told if event["type"] == "response.function_call_arguments.delta"]
    assert "".join(event["delta"] for event in deltas if event["output_index"] == 1) == WHOLE[0]
