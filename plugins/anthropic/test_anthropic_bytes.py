"""Requests of this protocol's own clients: what nobody changed keeps its bytes, whatever is in it."""

import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmproxy_anthropic import AnthropicDialect
from llmproxy_anthropic.apis import MESSAGES

from llmproxy_core import Carried, Translation, seal
from llmproxy_core.chat import ChatRequest, Message, ReasoningConfig, TextPart, ToolCall
from llmproxy_openai import OpenAIDialect

DIALECT, OPENAI = AnthropicDialect(), OpenAIDialect()

# As a coding agent sends it: odd spacing, a note to Anthropic alone, marks with members that are new, results and a
# reminder in one turn, thinking between calls.
AGENT = b"""{
  "model": "claude-sonnet-4-5", "max_tokens": 32000, "stream": true, "temperature": 1.0,
  "system": [
    {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.0; cc_entrypoint=cli;"},
    {"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral", "scope": "global"}},
    {"type":"text","text":"Rules", "cache_control": {"type": "ephemeral", "ttl": "1h"} }
  ],
  "messages": [
    {"role": "user", "content": [{"type":"text","text":"fix it"}]},
    {"role": "assistant", "content": [
      {"type":"thinking","thinking":"first","signature":"c2ln"},
      {"type":"tool_use","id":"toolu_1","name":"Read","input":{"path": "a.py", "limit": 1.0}},
      {"type":"tool_use","id":"toolu_2","name":"Read","input":{"path": "b.py", "offset": 12345678901234567890}}
    ]},
    {"role": "user", "content": [
      {"type":"tool_result","tool_use_id":"toolu_1","content":"text of a"},
      {"type":"tool_result","tool_use_id":"toolu_2","content":[{"type":"text","text":"no"}],"is_error":true},
      {"type":"text","text":"<system-reminder>be quick</system-reminder>","cache_control":{"type":"ephemeral"}}
    ]}
  ],
  "tools": [{"name":"Read","description":"d","input_schema":{"$schema":"x","type":"object","properties":{}},
             "eager_input_streaming": true}],
  "metadata": {"user_id": "user_1"},
  "thinking": {"type": "enabled", "budget_tokens": 31999},
  "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
  "output_config": {"effort": "high", "task_budget": {"type": "tokens", "total": 100000}}
}"""


def chat() -> ChatRequest:
    return DIALECT.read_chat(MESSAGES, AGENT)


def write(changed: ChatRequest) -> bytes:
    return DIALECT.write_chat(MESSAGES, changed)


def with_text(message: Message, new: str) -> Message:
    """*message* with its last text changed."""
    place, last = next((at, it) for at, it in reversed([*enumerate(message.content)]) if isinstance(it, TextPart))
    parts = (*message.content[:place], attrs.evolve(last, text=new), *message.content[place + 1 :])
    return attrs.evolve(message, content=parts)


def test_what_is_read_is_written_again() -> None:
    assert write(chat()) == AGENT


def test_results_are_turns_of_their_own_and_one_on_the_wire() -> None:
    roles = [message.role for message in chat().messages]

    assert roles == ["system", "user", "assistant", "tool", "user"]
    assert len(chat().messages[3].content) == 2


def test_a_changed_reminder_leaves_the_results_beside_it_alone() -> None:
    messages = list(chat().messages)
    messages[4] = with_text(messages[4], "go on")

    assert write(attrs.evolve(chat(), messages=tuple(messages))) == AGENT.replace(
        b"<system-reminder>be quick</system-reminder>", b"go on"
    )


def test_a_changed_prompt_keeps_the_note_that_nobody_else_was_shown() -> None:
    messages = list(chat().messages)
    assert "billing" not in messages[0].text
    messages[0] = with_text(messages[0], "New rules")

    assert write(attrs.evolve(chat(), messages=tuple(messages))) == AGENT.replace(b'"Rules"', b'"New rules"')


def test_a_begun_answer_that_goes_on_stays_a_string() -> None:
    asked = b'{"max_tokens":9,"messages":[{"role":"user","content":"2+2?"},{"role":"assistant", "content":"It"}]}'
    chat = DIALECT.read_chat(MESSAGES, asked)
    resumed = attrs.evolve(with_text(chat.messages[-1], "It is"), prefix=False)  # as a group that resumes asks

    assert write(attrs.evolve(chat, messages=(*chat.messages[:-1], resumed))) == asked.replace(b'"It"', b'"It is"')


def test_a_message_that_is_put_in_leaves_the_others_their_bytes() -> None:
    request = chat()
    more = Message("user", (TextPart("more"),))
    messages = (*request.messages, Message("assistant", (TextPart("done"),)), more)

    body = json.loads(write(attrs.evolve(request, messages=messages)))
    before = json.loads(AGENT)

    assert body["messages"][:3] == before["messages"]
    assert body["messages"][3:] == [
        {"role": "assistant", "content": "done"},
        {"role": "user", "content": "more"},
    ]
    assert body["system"] == before["system"]


def test_a_prompt_that_is_put_first_stands_in_the_system() -> None:
    request = chat()
    messages = (Message("system", (TextPart("Above all"),)), *request.messages)

    body = json.loads(write(attrs.evolve(request, messages=messages)))

    assert [block["text"] for block in body["system"]][1:] == ["Above all", "You are an agent.", "Rules"]
    assert body["messages"] == json.loads(AGENT)["messages"]


def test_a_prompt_of_a_string_stays_a_string() -> None:
    body = b'{"model":"m","max_tokens":1,"system":"a","messages":[{"role":"user","content":"q"}]}'
    request = DIALECT.read_chat(MESSAGES, body)
    messages = (with_text(request.messages[0], "b"), with_text(request.messages[1], "r"))

    assert write(attrs.evolve(request, messages=messages)) == body.replace(b'"a"', b'"b"').replace(b'"q"', b'"r"')


def test_only_the_members_that_were_changed_are_written() -> None:
    changed = attrs.evolve(chat(), reasoning=ReasoningConfig("low", 2000), max_output_tokens=9000, user=None)

    body = write(changed)

    expected = AGENT.replace(b'{"type": "enabled", "budget_tokens": 31999}', b'{"type":"enabled","budget_tokens":2000}')
    expected = expected.replace(b"32000", b"9000").replace(b'"effort": "high"', b'"effort": "low"')
    assert body == expected.replace(b'{"user_id": "user_1"}', b"{}")


def test_a_system_message_among_the_others_keeps_its_place() -> None:
    body = (
        b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"q"},'
        b'{"role":"system","content":[{"type":"text","text":"S","cache_control":{"type":"ephemeral"}}]}]}'
    )
    request = DIALECT.read_chat(MESSAGES, body)
    messages = (request.messages[0], with_text(request.messages[1], "T"))

    assert [message.role for message in request.messages] == ["user", "system"]
    assert write(attrs.evolve(request, messages=messages)) == body.replace(b'"S"', b'"T"')


def test_prepare_changes_the_model_and_the_stream_alone() -> None:
    assert DIALECT.prepare(MESSAGES, AGENT) == AGENT
    assert DIALECT.prepare(MESSAGES, AGENT, model="claude-sonnet-4-5", stream=True, ask_usage=True) == AGENT
    changed = DIALECT.prepare(MESSAGES, AGENT, model="claude-opus-4-8", stream=False)
    assert changed == AGENT.replace(b"claude-sonnet-4-5", b"claude-opus-4-8").replace(b"true,", b"false,", 1)


def test_prepare_leaves_out_what_only_other_providers_can_read() -> None:
    """The client's history may be another provider's, if its route was: ours would refuse it."""
    thinking = {"type": "thinking", "thinking": "hm", "signature": seal(Carried("gemini", signature="g"))}
    carried = {"type": "redacted_thinking", "data": seal(Carried("gemini", signature="c", of_call=True))}
    call = {"type": "tool_use", "id": "t", "name": "n", "input": {}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": [thinking, carried, call]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "r"}]},
    ]
    for foreign in ([thinking, carried], [thinking], [carried]):
        messages[1]["content"] = [*foreign, call]
        body = json.dumps({"model": "m", "max_tokens": 1, "messages": messages}).encode()

        prepared = json.loads(DIALECT.prepare(MESSAGES, body))

        messages[1]["content"] = [call]
        assert prepared["messages"] == messages


def test_prepare_leaves_no_message_empty_and_no_budget_to_a_loop_that_lost_its_thinking() -> None:
    """Calls of a turn that goes on must come after thinking, when there is a budget for it."""
    foreign = {"type": "thinking", "thinking": "hm", "signature": seal(Carried("gemini", signature="g"))}
    ours = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    call = {"type": "tool_use", "id": "t", "name": "n", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": "r"}
    reminder, budget = {"type": "text", "text": "be quick"}, {"type": "enabled", "budget_tokens": 1024}
    earlier = [{"role": "user", "content": "p"}, {"role": "assistant", "content": [foreign]}]
    asked = {"role": "user", "content": "q"}
    for first, end, thinking, stays in (
        (foreign, [result], budget, False),
        (foreign, [result, reminder], budget, False),
        (foreign, [result], {"type": "adaptive"}, True),
        (ours, [result], budget, True),
        (ours, [result, reminder], budget, True),
    ):
        loop = [asked, {"role": "assistant", "content": [first, call]}, {"role": "user", "content": end}]
        body = {"model": "m", "max_tokens": 4096, "system": "s", "thinking": thinking, "messages": [*earlier, *loop]}

        prepared = json.loads(DIALECT.prepare(MESSAGES, json.dumps(body).encode()))

        loop[1] = {"role": "assistant", "content": [call] if first is foreign else [first, call]}
        assert prepared.pop("messages") == [earlier[0], *loop]
        assert prepared.get("thinking") == (thinking if stays else None)
        assert prepared["system"] == "s"


CLEARING = {"type": "clear_thinking_20251015", "keep": "all"}
CLEARING_TOOLS = {"type": "clear_tool_uses_20250919"}


@pytest.mark.parametrize(
    ("managed", "left"),
    [
        ({"edits": [CLEARING]}, None),
        ({"edits": [CLEARING, CLEARING_TOOLS], "x": 1}, {"edits": [CLEARING_TOOLS], "x": 1}),
        ({"edits": [CLEARING_TOOLS]}, {"edits": [CLEARING_TOOLS]}),
    ],
)
def test_what_clears_thinking_goes_with_the_thinking(managed: dict[str, Any], left: dict[str, Any] | None) -> None:
    foreign = {"type": "thinking", "thinking": "hm", "signature": seal(Carried("gemini", signature="g"))}
    call = {"type": "tool_use", "id": "t", "name": "n", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": "r"}
    loop = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": [foreign, call]},
        {"role": "user", "content": [result]},
    ]
    body = {"model": "m", "max_tokens": 4096, "messages": loop, "context_management": managed}

    def prepared(thinking: dict[str, Any]) -> dict[str, Any]:
        asked = json.dumps(body | {"thinking": thinking}).encode()
        out: dict[str, Any] = json.loads(DIALECT.prepare(MESSAGES, asked))
        return out

    lost = prepared({"type": "enabled", "budget_tokens": 1024})
    assert "thinking" not in lost
    assert lost.get("context_management") == left
    assert prepared({"type": "adaptive"})["context_management"] == managed


def test_what_clears_thinking_goes_when_a_processor_takes_the_thinking_away() -> None:
    body = {
        "model": "m",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "q"}],
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": [CLEARING]},
    }
    asked = DIALECT.read_chat(MESSAGES, json.dumps(body).encode())

    assert "context_management" in json.loads(DIALECT.write_chat(MESSAGES, attrs.evolve(asked, user="u")))
    assert "context_management" not in json.loads(DIALECT.write_chat(MESSAGES, attrs.evolve(asked, reasoning=None)))


def test_the_signature_of_a_call_that_is_gone_goes_too() -> None:
    """A client that forgets old calls may keep the blocks that stood before them: ours would refuse these."""
    carried = {"type": "redacted_thinking", "data": seal(Carried("gemini", signature="c", id="t", of_call=True))}
    text = {"type": "text", "text": "a"}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "p"},
        {"role": "assistant", "content": [carried]},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": [text, carried]},
        {"role": "user", "content": "r"},
    ]
    body = json.dumps({"model": "m", "max_tokens": 1, "messages": messages}).encode()

    prepared = json.loads(DIALECT.prepare(MESSAGES, body))

    messages[3]["content"] = [text]
    assert prepared["messages"] == [messages[0], *messages[2:]]


def test_a_signature_is_no_other_call_s() -> None:
    carried = {"type": "redacted_thinking", "data": seal(Carried("gemini", signature="c", id="t", of_call=True))}

    def signature(call_id: str) -> str | None:
        call = {"type": "tool_use", "id": call_id, "name": "n", "input": {}}
        body = {"model": "m", "max_tokens": 1, "messages": [{"role": "assistant", "content": [carried, call]}]}
        part = DIALECT.read_chat(MESSAGES, json.dumps(body).encode()).messages[0].content[0]
        assert isinstance(part, ToolCall)
        return part.signature

    assert (signature("t"), signature("u")) == ("c", None)


def test_an_agent_s_request_reaches_another_provider() -> None:
    translation = Translation(llm="other", drops=True)

    body = json.loads(OPENAI.write_chat(OPENAI.apis[0], attrs.evolve(chat(), model="gpt-5"), translation))

    assert "billing" not in json.dumps(body)
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "tool", "tool", "user"]
    assert translation.changes["context_management"] == "dropped"
    assert body["reasoning_effort"] == "high"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.text(min_size=1, max_size=8).map("x_{}".format), JSON, max_size=3))
def test_unknown_members_pass_wherever_they_stand(unknown: dict[str, Any]) -> None:
    body = json.loads(AGENT)
    for node in (body, body["messages"][2], body["messages"][2]["content"][0], body["system"][1], body["tools"][0]):
        node.update(unknown)
    text = json.dumps(body).encode()
    request = DIALECT.read_chat(MESSAGES, text)
    messages = list(request.messages)
    messages[4] = with_text(messages[4], "changed")

    assert write(request) == text
    assert write(attrs.evolve(request, messages=tuple(messages))) == text.replace(
        b"<system-reminder>be quick</system-reminder>", b"changed"
    )
