"""Content blocks that recordings do not show: documents, search results, sources, citations in a conversation."""

import json
from typing import Any

import attrs
import pytest
from llmproxy_anthropic import AnthropicDialect
from llmproxy_anthropic.apis import MESSAGES

from llmproxy_core.chat import (
    CacheMark,
    ChatRequest,
    DocumentPart,
    ImagePart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    Source,
    TextPart,
    ToolCall,
    ToolResult,
)

DIALECT = AnthropicDialect()
PAGE = {"type": "page_location", "cited_text": "c", "document_index": 0, "document_title": "t"}


def request(*blocks: Any, role: str = "user") -> bytes:
    messages = [{"role": "user", "content": "q"}, {"role": role, "content": list(blocks)}]
    return json.dumps({"model": "m", "max_tokens": 1, "messages": messages}).encode()


def read(block: Any, role: str = "user") -> Part:
    (part,) = DIALECT.read_chat(MESSAGES, request(block, role=role)).messages[1].content
    return part


def document(source: Any, **members: Any) -> dict[str, Any]:
    return {"type": "document", "source": source, **members}


@pytest.mark.parametrize(
    ("block", "part"),
    [
        (
            document({"type": "base64", "media_type": "application/pdf", "data": "JV"}, title="t", context="c"),
            DocumentPart(Source(data="JV", media_type="application/pdf"), "t", "c"),
        ),
        (
            document({"type": "text", "media_type": "text/plain", "data": "x"}, citations={"enabled": True}),
            DocumentPart(Source(text="x", media_type="text/plain"), citations=True),
        ),
        (document({"type": "content", "content": "x"}), DocumentPart(Source(text="x"))),
        (
            document({"type": "content", "content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]}),
            DocumentPart(Source(text="x\ny")),
        ),
        (
            {"type": "search_result", "source": "https://a", "title": "t", "content": [{"type": "text", "text": "x"}]},
            DocumentPart(Source(text="x"), "t", "https://a"),
        ),
        ({"type": "image", "source": {"type": "file", "file_id": "f"}}, ImagePart(Source(file_id="f"))),
        (
            {"type": "image", "source": {"type": "url", "url": "u"}, "cache_control": {"type": "ephemeral"}},
            ImagePart(Source(url="u"), cache=CacheMark()),
        ),
        ({"type": "tool_reference", "tool_name": "n"}, TextPart("n")),
    ],
    ids=lambda it: it["type"] if isinstance(it, dict) else "",
)
def test_a_block_is_read_as_what_it_means(block: Any, part: Part) -> None:
    assert read(block) == part


@pytest.mark.parametrize(
    "block",
    [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "container_upload", "file_id": "f"},
        document({"type": "content", "content": [{"type": "image", "source": {}}]}),
        document({"type": "new", "x": 1}),
        {"type": "image", "source": {"type": "new"}},
        {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "image"}]},
    ],
    ids=lambda it: json.dumps(it)[:40],
)
def test_what_nobody_else_understands_is_kept_as_it_is(block: Any) -> None:
    part = read(block)

    assert isinstance(part, OpaquePart)
    assert json.loads(part.raw.text) == block


def test_changed_documents_and_images_are_written_with_all_they_have() -> None:
    blocks = [
        document({"type": "text", "media_type": "text/plain", "data": "x"}, title="t", citations={"enabled": True}),
        {"type": "image", "source": {"type": "file", "file_id": "f"}, "cache_control": {"type": "ephemeral"}},
        document({"type": "file", "file_id": "g"}, context="c"),
    ]
    chat = DIALECT.read_chat(MESSAGES, request(*blocks))
    parts = tuple(attrs.evolve(part) for part in chat.messages[1].content)  # it forgets its bytes
    messages = (chat.messages[0], attrs.evolve(chat.messages[1], content=parts))

    body = DIALECT.write_chat(MESSAGES, attrs.evolve(chat, messages=messages))

    assert json.loads(body)["messages"][1]["content"] == blocks


def test_citations_of_the_past_go_back_with_a_changed_text() -> None:
    block = {"type": "text", "text": "said", "citations": [PAGE]}
    chat = DIALECT.read_chat(MESSAGES, request(block, role="assistant"))
    (part,) = chat.messages[1].content
    assert isinstance(part, TextPart)
    assert (part.citations[0].kind, part.citations[0].title, part.citations[0].text) == ("page_location", "t", "c")

    for changed in (attrs.evolve(part, text="new"), attrs.evolve(part, text="new", cache=CacheMark())):
        messages = (chat.messages[0], attrs.evolve(chat.messages[1], content=(changed,)))
        body = json.loads(DIALECT.write_chat(MESSAGES, attrs.evolve(chat, messages=messages)))

        assert body["messages"][1]["content"][0]["citations"] == [PAGE]
        assert body["messages"][1]["content"][0]["text"] == "new"


def test_changed_thinking_and_arguments_keep_the_rest_of_their_block() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "s", "x": 1.0}
    call = {"type": "tool_use", "id": "t", "name": "n", "input": {"a": 1}, "caller": {"type": "direct"}}
    chat = DIALECT.read_chat(MESSAGES, request(thought, call, role="assistant"))
    first, second = chat.messages[1].content
    assert isinstance(first, ReasoningPart)
    assert isinstance(second, ToolCall)
    changed = (attrs.evolve(first, text="so"), attrs.evolve(second, arguments='{"a": 2}'))
    messages = (chat.messages[0], attrs.evolve(chat.messages[1], content=changed))

    body = json.loads(DIALECT.write_chat(MESSAGES, attrs.evolve(chat, messages=messages)))

    assert body["messages"][1]["content"] == [thought | {"thinking": "so"}, call | {"input": {"a": 2}}]


def test_a_changed_turn_of_results_is_one_turn_still() -> None:
    """Its role and members of its own changed too: it is written anew, from blocks that keep their bytes."""
    result = {"type": "tool_result", "tool_use_id": "t", "content": "r", "is_error": True, "x": 1.0}
    call = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "n", "input": {}}]}
    last = {"role": "user", "content": [result, {"type": "text", "text": "go", "y": 2.0}]}
    body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "q"}, call, last]}
    chat = DIALECT.read_chat(MESSAGES, json.dumps(body).encode())
    tool = attrs.evolve(chat.messages[2], extra={"z": b"3"})

    messages = (*chat.messages[:2], tool, chat.messages[3])
    written = json.loads(DIALECT.write_chat(MESSAGES, attrs.evolve(chat, messages=messages)))

    assert written["messages"][2] == last | {"z": 3}


def test_a_request_of_our_own_making_is_written() -> None:
    """As processors make them: read from no protocol."""
    result = ToolResult("c", (TextPart("r", cache=CacheMark("5m")),), cache=CacheMark())
    messages = (
        Message("system", (TextPart("s", cache=CacheMark("1h")),)),
        Message("user", (TextPart("q"),)),
        Message("assistant", (ToolCall("c", "n", '{"a":1}', cache=CacheMark()),)),
        Message("tool", (result,)),
    )
    chat = ChatRequest("claude-sonnet-4-5", messages, max_output_tokens=9, cache=CacheMark(), stop=("END",))

    back = DIALECT.read_chat(MESSAGES, DIALECT.write_chat(MESSAGES, chat))

    assert back.messages == messages
    assert (back.cache, back.stop, back.max_output_tokens) == (CacheMark(), ("END",), 9)
