"""A request that is written again in its own wire form keeps every byte that nobody changed."""

import json
from typing import TypeGuard

import attrs
import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llmproxy_core.chat import ImagePart, Message, OpaquePart, Part, TextPart, ToolResult
from llmproxy_openai import OpenAIDialect
from llmproxy_openai.paths import CHAT, COMPLETIONS
from tests.llmproxy_openai.request_strategies import requests
from tests.recordings import Recording, openai_recordings

OPENAI = OpenAIDialect()


def raws(body: bytes) -> dict[str, bytes]:
    return {name: bytes(raw) for name, raw in msgspec.json.decode(body, type=dict[str, msgspec.Raw]).items()}


def items(array: bytes) -> list[bytes]:
    return [bytes(raw) for raw in msgspec.json.decode(array, type=list[msgspec.Raw])]


def spacing(array: bytes) -> bytes:
    """What stands between the elements: only spaces and commas do, so each is found from where the last ended."""
    position, between = 0, []
    for item in items(array):
        start = array.index(item, position)
        between.append(array[position:start])
        position = start + len(item)
    return b"|".join([*between, array[position:]])


def without_bytes(part: Part) -> Part:
    """*part* as `attrs.evolve` leaves it, and all parts inside it."""
    match part:
        case OpaquePart():
            return part
        case ToolResult(content=content):
            return attrs.evolve(part, content=tuple(map(without_bytes, content)))
        case TextPart(citations=citations):
            return attrs.evolve(part, citations=citations)
        case _:
            return attrs.evolve(part)


def as_said(message: Message) -> Message:
    """An empty text says what no part says, and several texts of an assistant what one says; they are written so."""

    def kept(content: tuple[Part, ...]) -> tuple[Part, ...]:
        parts: list[Part] = []
        for part in content:
            if part == TextPart(""):
                continue
            before = parts[-1] if parts else None
            if message.role == "assistant" and is_plain(part) and is_plain(before):
                parts[-1] = TextPart(before.text + part.text)
            elif isinstance(part, ToolResult):
                parts.append(attrs.evolve(part, content=kept(part.content)))
            else:
                parts.append(part)
        return tuple(parts)

    return attrs.evolve(message, content=kept(message.content))


def is_plain(part: Part | None) -> TypeGuard[TextPart]:
    return isinstance(part, TextPart) and part == TextPart(part.text)


@pytest.mark.parametrize("recording", openai_recordings(protocol="chat"), ids=str)
@pytest.mark.parametrize("indent", [None, 2])
def test_a_recorded_request_is_written_as_it_was_read(recording: Recording, indent: int | None) -> None:
    body = json.dumps(json.loads(recording.request_body), indent=indent).encode()

    assert OPENAI.write_chat(CHAT, OPENAI.read_chat(CHAT, body)) == body


@pytest.mark.repeats
@given(requests())
def test_any_request_is_written_as_it_was_read(body: bytes) -> None:
    assert OPENAI.write_chat(CHAT, OPENAI.read_chat(CHAT, body)) == body


@pytest.mark.repeats
@given(requests(min_messages=1), st.data())
def test_a_changed_message_changes_nothing_else(body: bytes, data: st.DataObject) -> None:
    chat = OPENAI.read_chat(CHAT, body)
    index = data.draw(st.integers(0, len(chat.messages) - 1))
    changed = Message("user", (TextPart("NEW"),))
    messages = (*chat.messages[:index], changed, *chat.messages[index + 1 :])

    out = OPENAI.write_chat(CHAT, attrs.evolve(chat, messages=messages))

    was, now = raws(body), raws(out)
    assert list(now) == list(was)
    assert {name for name in was if now[name] != was[name]} == {"messages"}
    before, after = items(was["messages"]), items(now["messages"])
    assert after[:index] + after[index + 1 :] == before[:index] + before[index + 1 :]
    assert OPENAI.read_chat(CHAT, out).messages[index] == changed
    assert spacing(was["messages"]) == spacing(now["messages"])


@pytest.mark.repeats
@given(requests(min_messages=1), st.data())
def test_a_changed_text_changes_nothing_else_of_its_message(body: bytes, data: st.DataObject) -> None:
    chat = OPENAI.read_chat(CHAT, body)
    texts = [
        (i, j)
        for i, message in enumerate(chat.messages)
        for j, part in enumerate(message.content)
        if isinstance(part, TextPart) and message.role in ("system", "developer", "user")
    ]
    assume(texts)
    i, j = data.draw(st.sampled_from(texts))
    message = chat.messages[i]
    part = message.content[j]
    assert isinstance(part, TextPart)
    content = (*message.content[:j], attrs.evolve(part, text="NEW, and only once"), *message.content[j + 1 :])
    changed = attrs.evolve(message, content=content)

    out = OPENAI.write_chat(CHAT, attrs.evolve(chat, messages=(*chat.messages[:i], changed, *chat.messages[i + 1 :])))

    before, _, after = out.partition(b'"NEW, and only once"')
    assert body.startswith(before)
    assert body.endswith(after)
    assert json.loads(body[len(before) : len(body) - len(after)]) == part.text


@pytest.mark.repeats
@given(requests(min_messages=1))
def test_messages_put_before_and_after_leave_the_others_alone(body: bytes) -> None:
    chat = OPENAI.read_chat(CHAT, body)
    new = Message("system", (TextPart("first"),))

    out = OPENAI.write_chat(CHAT, attrs.evolve(chat, messages=(new, *chat.messages, new)))

    assert items(raws(out)["messages"])[1:-1] == items(raws(body)["messages"])


@pytest.mark.repeats
@given(requests())
def test_what_is_written_anew_means_the_same(body: bytes) -> None:
    """Without its origin a request is rendered from its meaning; reading that gives the meaning back."""
    chat = OPENAI.read_chat(CHAT, body)

    again = OPENAI.read_chat(CHAT, OPENAI.write_chat(CHAT, attrs.evolve(chat, origin=None)))

    assert again == chat


@pytest.mark.repeats
@given(requests())
def test_a_rendered_message_means_the_same_without_its_bytes(body: bytes) -> None:
    """The nodes forget their bytes too, so that each is rendered."""
    chat = OPENAI.read_chat(CHAT, body)
    forgetful = tuple(
        attrs.evolve(message, content=tuple(map(without_bytes, message.content))) for message in chat.messages
    )

    again = OPENAI.read_chat(CHAT, OPENAI.write_chat(CHAT, attrs.evolve(chat, messages=forgetful, origin=None)))

    assert [as_said(message) for message in again.messages] == [as_said(message) for message in chat.messages]
    assert [message.extra for message in again.messages] == [message.extra for message in chat.messages]


def test_untouched_parts_and_unknown_members_of_a_changed_message_stay() -> None:
    image = b'{ "type":"image_url" , "image_url": {"url":"https://example.com/a", "detail":"low"}, "x": 1.0 }'
    body = b'{"messages":[{"role":"user","x_note": 1.50,"content":[{"type":"text","text":"old"}, ' + image + b"]}]}"
    chat = OPENAI.read_chat(CHAT, body)
    message = chat.messages[0]
    changed = attrs.evolve(message, content=(TextPart("new"), *message.content[1:]))

    out = OPENAI.write_chat(CHAT, attrs.evolve(chat, messages=(changed,)))

    assert image in out
    assert b'"x_note": 1.50' in out
    assert json.loads(out)["messages"][0]["content"][0] == {"type": "text", "text": "new"}


def test_unknown_members_of_a_changed_part_stay() -> None:
    body = (
        b'{"messages":[{"role":"user","content":[{"type":"image_url","x":1.0,'
        b'"image_url":{"url":"https://example.com/a","y":2.0},"cache_control":{"type":"ephemeral","ttl":"1h"}}]}]}'
    )
    chat = OPENAI.read_chat(CHAT, body)
    message = chat.messages[0]
    part = message.content[0]
    assert isinstance(part, ImagePart)
    changed = attrs.evolve(message, content=(attrs.evolve(part, detail="high"),))

    out = json.loads(OPENAI.write_chat(CHAT, attrs.evolve(chat, messages=(changed,))))

    assert out["messages"][0]["content"][0] == {
        "type": "image_url",
        "image_url": {"url": "https://example.com/a", "detail": "high", "y": 2.0},
        "cache_control": {"type": "ephemeral", "ttl": "1h"},
        "x": 1.0,
    }


@pytest.mark.parametrize(
    ("body", "changes", "expected"),
    [
        pytest.param(b'{"max_tokens": 5, "messages":[]}', {"max_output_tokens": 9}, {"max_tokens": 9}, id="old name"),
        pytest.param(
            b'{"max_completion_tokens": 5, "max_tokens": null, "messages":[]}',
            {"max_output_tokens": 9},
            {"max_completion_tokens": 9, "max_tokens": None},
            id="new name",
        ),
        pytest.param(b'{"messages":[]}', {"max_output_tokens": 9}, {"max_completion_tokens": 9}, id="no name yet"),
        pytest.param(b'{"messages":[], "stop": "a"}', {"stop": ("b",)}, {"stop": "b"}, id="one stop"),
        pytest.param(b'{"messages":[], "stop": ["a"]}', {"stop": ("b",)}, {"stop": ["b"]}, id="stops"),
        pytest.param(b'{"messages":[], "stop": ["a"]}', {"stop": ()}, {}, id="no stop"),
        pytest.param(b'{"messages":[], "temperature": 1}', {"temperature": None}, {}, id="removed"),
        pytest.param(
            b'{"messages":[],"stream":true,"stream_options":{"include_obfuscation":false}}',
            {"wants_usage": True},
            {"stream": True, "stream_options": {"include_obfuscation": False, "include_usage": True}},
            id="usage asked for",
        ),
        pytest.param(
            b'{"messages":[],"stream":true,"stream_options":{"include_usage":true}}',
            {"stream": False},
            {"stream": False},
            id="no stream, no options of it",
        ),
        pytest.param(
            b'{"messages":[],"user":"a","safety_identifier":"b"}',
            {"user": "hidden"},
            {"user": "hidden", "safety_identifier": "hidden"},
            id="both names of the user",
        ),
        pytest.param(b'{"messages":[],"x":1,"y":2}', {"extra": {"y": b"3", "z": b"4"}}, {"y": 3, "z": 4}, id="extra"),
    ],
)
def test_a_changed_field_is_written_under_the_name_it_had(
    body: bytes, changes: dict[str, object], expected: dict[str, object]
) -> None:
    chat = OPENAI.read_chat(CHAT, body)

    out = json.loads(OPENAI.write_chat(CHAT, attrs.evolve(chat, **changes)))  # type: ignore[arg-type]

    assert out == {"messages": [], **expected}


def test_a_changed_prompt_leaves_the_rest_of_a_completion_alone() -> None:
    body = b'{"echo": true , "prompt":  "old", "temperature": 1.0, "logprobs": 2}'
    chat = OPENAI.read_chat(COMPLETIONS, body)

    same = OPENAI.write_chat(COMPLETIONS, chat)
    changed = OPENAI.write_chat(COMPLETIONS, attrs.evolve(chat, messages=(Message("user", (TextPart("new"),)),)))

    assert same == body
    assert changed == body.replace(b"old", b"new")
