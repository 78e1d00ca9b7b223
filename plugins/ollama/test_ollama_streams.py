"""Streams of lines: cut anywhere, copied without decoding, changed in one place, and broken in every way."""

import json

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmproxy_ollama.apis import CHAT
from llmproxy_ollama.dialect import OllamaDialect
from llmproxy_ollama.lines import LineSplitter, lines_of

from llmproxy_core import Frame, UpstreamGarbage, UsageSource
from llmproxy_core.chat import ChatEvent, End, Failed, Finished, Start, TextDelta, ToolCallStart, UsageReported

OLLAMA = OllamaDialect()
HEAD = b'{"model":"qwen3","created_at":"2025-10-26T17:15:24.097767Z",'
COUNTS = b'"prompt_eval_count":9,"eval_count":3'
LAST = HEAD + b'"message":{"role":"assistant","content":""},"done":true,"done_reason":"stop",%b}\n' % COUNTS


def said(text: str) -> bytes:
    return HEAD + b'"message":{"role":"assistant","content":%b},"done":false}\n' % json.dumps(text).encode()


def frames(stream: bytes) -> list[Frame]:
    reader = OLLAMA.reader(CHAT)
    return [*reader.feed(stream), *reader.end()]


def events(stream: bytes) -> list[ChatEvent]:
    return [event for frame in frames(stream) for event in frame.events]


@given(st.lists(st.binary(max_size=9)))
def test_lines_are_the_same_however_they_are_cut(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    splitter = LineSplitter()

    blocks = [splitter.feed(piece) for piece in pieces]

    assert b"".join(blocks) == whole[: whole.rfind(b"\n") + 1]
    assert all(block.endswith(b"\n") for block in blocks if block)
    assert b"".join(lines_of(b"".join(blocks))) == b"".join(blocks)


def test_a_line_without_an_end_is_not_held_for_ever() -> None:
    splitter = LineSplitter(longest_bytes=8)
    splitter.feed(b"12345678")

    with pytest.raises(UpstreamGarbage):
        splitter.feed(b"9")


def test_a_stream_is_copied_without_decoding_its_text() -> None:
    scanner = OLLAMA.scanner(CHAT, usage=False)
    stream = b"".join(said(f'word {number} "error": true') for number in range(100)) + LAST

    out = b"".join(scanner.feed(line) for line in lines_of(stream))

    assert out == stream
    assert scanner.decoded == 2
    assert (scanner.done, scanner.model, scanner.finish) == (True, "qwen3", ("stop",))
    assert scanner.usage is not None
    assert scanner.usage.total_tokens == 12


def test_what_a_broken_stream_cost_is_estimated() -> None:
    scanner = OLLAMA.scanner(CHAT, usage=False)
    for _ in range(500):
        scanner.feed(said("four"))

    assert 400 <= scanner.output_tokens() <= 600


@pytest.mark.parametrize("before", [b"", said("four") * 20], ids=["first", "later"])
@pytest.mark.parametrize("end", [b'{"error":"stopped"}\n', b"<html>\n"], ids=["error", "garbage"])
def test_what_stands_behind_an_error_in_the_same_read_costs_nothing(before: bytes, end: bytes) -> None:
    scanner, other = OLLAMA.scanner(CHAT, usage=False), OLLAMA.scanner(CHAT, usage=False)

    scanner.feed(before + end + said("four") * 20)
    other.feed(before)

    assert scanner.output_tokens() == other.output_tokens()


@pytest.mark.parametrize(
    "rest",
    [b'{"error":"stopped"}\n', b"<html>\n", b"[]\n", b'{"error":"stopped"}'],
)
def test_what_is_no_line_of_an_answer_ends_it(rest: bytes) -> None:
    stream = said("So") + rest
    scanner = OLLAMA.scanner(CHAT, usage=True)

    out = scanner.feed(stream) + scanner.end()

    assert out == said("So")
    assert scanner.error is not None
    assert not scanner.done
    last = events(stream)[-1]
    assert isinstance(last, Failed)
    assert last.message == scanner.error.message


def test_an_error_passes_to_clients_as_it_was_said() -> None:
    scanner = OLLAMA.scanner(CHAT, usage=True)
    line = b'{"error": "stopped", "strange": 1}\n'
    scanner.feed(said("So") + line)
    assert scanner.error is not None

    assert OLLAMA.error_event(scanner.error, "request-1", CHAT, scanner) == line


def test_a_last_line_needs_no_end() -> None:
    assert isinstance(events(said("So") + LAST.rstrip())[-1], End)
    assert not any(isinstance(event, End) for event in events(said("So") + LAST.rstrip()[:-1]))


def test_old_servers_do_not_say_why_they_ended_nor_count_what_was_cached() -> None:
    last = HEAD + b'"message":{"role":"assistant","content":""},"done":true,"eval_count":3}\n'

    found = events(said("So") + last)

    finish = next(event.finish for event in found if isinstance(event, Finished))
    usage = next(event.usage for event in found if isinstance(event, UsageReported))
    assert finish.word == "stop"
    assert (usage.input_tokens, usage.output_tokens, usage.source) == (0, 3, UsageSource.ESTIMATED)


def test_calls_are_counted_over_lines_and_get_ids() -> None:
    line = (
        HEAD
        + b'"message":{"content":"","tool_calls":[{"function":{"name":"f","arguments":{"a":1.0}}}]},"done":false}\n'
    )

    calls = [event for event in events(line + line + LAST) if isinstance(event, ToolCallStart)]

    assert [call.index for call in calls] == [0, 1]
    assert len({call.id for call in calls}) == 2


def test_a_changed_text_changes_its_string_alone() -> None:
    strange = said("So").replace(b'"done"', b'"strange": 1.0,  "done"')
    [first, second] = frames(said("Oh") + strange)
    writer = OLLAMA.writer(CHAT, usage=True)
    writer.write(first.events, first)

    assert writer.write([TextDelta(0, "No")], second) == strange.replace(b'"So"', b'"No"')
    assert writer.write([TextDelta(0, "N"), TextDelta(0, "o")], second) == strange.replace(b'"So"', b'"No"')
    assert writer.write([], second) == b""


def test_what_was_held_back_goes_into_the_last_line() -> None:
    [*_, last] = frames(said("Oh") + LAST)
    writer = OLLAMA.writer(CHAT, usage=True)

    out = writer.write([TextDelta(0, "!"), *last.events], last)

    assert out == LAST.replace(b'"content":""', b'"content":"!"')


def test_an_answer_that_is_ended_early_has_a_last_line() -> None:
    [first] = frames(said("Oh"))
    writer = OLLAMA.writer(CHAT, usage=True)

    out = writer.write([*first.events, End()], first)

    told = [json.loads(line) for line in out.splitlines()]
    assert [(line["message"]["content"], line["done"]) for line in told] == [("Oh", False), ("", True)]


def test_each_line_names_the_model_that_is_shown() -> None:
    writer = OLLAMA.writer(CHAT, usage=True)
    stream = said("Oh") + said("So") + LAST

    out = b"".join(
        writer.write([attrs.evolve(it, model="sky") if isinstance(it, Start) else it for it in frame.events], frame)
        for frame in frames(stream)
    )

    assert out == stream.replace(b"qwen3", b"sky")
