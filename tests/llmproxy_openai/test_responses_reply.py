"""Whole answers of the Responses API: read, written again, and made of the answers of others."""

import json
from typing import Any

import attrs
import pytest

from llmproxy_core.carried import Carried, unseal
from llmproxy_core.chat import (
    ChatReply,
    Choice,
    Citation,
    Finish,
    FinishReason,
    OpaquePart,
    Part,
    Raw,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCall,
)
from llmproxy_core.errors import UpstreamAuthError, UpstreamError, UpstreamGarbage
from llmproxy_core.usage import Usage
from llmproxy_openai import OpenAIDialect
from llmproxy_openai.paths import CHAT
from llmproxy_openai.responses import ResponsesDialect
from llmproxy_openai.responses.paths import CREATE
from tests.recordings import Recording, recordings

DIALECT, OPENAI = ResponsesDialect(), OpenAIDialect()
ANSWERS = [
    each
    for each in recordings()
    if each.request_path.endswith("/responses") and each.response_status == 200 and not each.stream
]
STOP = Finish(FinishReason.STOP)


def response(**members: Any) -> bytes:
    usual = {"id": "resp_1", "object": "response", "created_at": 5, "model": "m", "status": "completed", "output": []}
    return json.dumps({**usual, **members}).encode()


def said(*parts: Part, finish: Finish = STOP, **fields: Any) -> dict[str, Any]:
    """The answer of another protocol's provider, for a client of this one."""
    reply = ChatReply("chatcmpl-1", "m", (Choice(0, parts, finish),), **fields)
    out: dict[str, Any] = json.loads(DIALECT.write_reply(CREATE, reply))
    return out


# -- bytes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recording", ANSWERS, ids=str)
def test_an_untouched_answer_keeps_its_bytes(recording: Recording) -> None:
    reply = DIALECT.read_reply(CREATE, recording.response_body)
    assert DIALECT.write_reply(CREATE, reply) == recording.response_body
    head = DIALECT.scan_reply(CREATE, recording.response_body)
    assert (head.usage, head.model, head.id) == (reply.usage, reply.model, reply.id)


@pytest.mark.parametrize("recording", ANSWERS, ids=str)
def test_a_changed_text_changes_nothing_else(recording: Recording) -> None:
    reply = DIALECT.read_reply(CREATE, recording.response_body)
    content = reply.choices[0].content
    for place, part in enumerate(content):
        if not isinstance(part, TextPart):
            continue
        edited = (*content[:place], attrs.evolve(part, text=part.text + "§"), *content[place + 1 :])
        out = DIALECT.write_reply(
            CREATE, attrs.evolve(reply, choices=(attrs.evolve(reply.choices[0], content=edited),))
        )
        assert out.replace("§".encode(), b"") == recording.response_body


def test_every_place_of_a_text_is_changed_and_what_spells_it_goes() -> None:
    logprobs = [{"token": "secret", "logprob": -1.0, "bytes": [], "top_logprobs": []}]
    part = {"type": "output_text", "text": "secret", "annotations": [], "logprobs": logprobs}
    items = [
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "secret"}],
            "encrypted_content": "E",
        },
        {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [part]},
        {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "c",
            "name": "f",
            "arguments": '{"a":"secret"}',
            "status": "completed",
        },
    ]
    reply = DIALECT.read_reply(CREATE, response(output=items))
    assert reply.choices[0].logprobs is not None
    thought, text, call = reply.choices[0].content
    assert isinstance(thought, ReasoningPart)
    assert isinstance(text, TextPart)
    assert isinstance(call, ToolCall)
    content = (
        attrs.evolve(thought, text="*"),
        attrs.evolve(text, text="*"),
        attrs.evolve(call, arguments='{"a":"*"}'),
    )
    out = DIALECT.write_reply(CREATE, attrs.evolve(reply, choices=(attrs.evolve(reply.choices[0], content=content),)))
    assert b"secret" not in out
    now = json.loads(out)["output"]
    assert [item["id"] for item in now] == ["rs_1", "msg_1", "fc_1"]
    assert now[0]["encrypted_content"] == "E"
    assert now[1]["content"][0]["logprobs"] == []


# -- meaning -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "reason", "word"),
    [
        ({"status": "completed"}, FinishReason.STOP, "completed"),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
            FinishReason.LENGTH,
            "max_output_tokens",
        ),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
            FinishReason.CONTENT_FILTER,
            "content_filter",
        ),
        (
            {"output": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]},
            FinishReason.TOOL_CALLS,
            "completed",
        ),
    ],
)
def test_the_end_is_told_by_status_and_reason(members: dict[str, Any], reason: FinishReason, word: str) -> None:
    finish = DIALECT.read_reply(CREATE, response(**members)).choices[0].finish
    assert finish is not None
    assert (finish.reason, finish.word) == (reason, word)
    assert DIALECT.scan_reply(CREATE, response(**members)).finish == (word,)


def test_an_incomplete_answer_without_a_message_is_an_empty_one_elsewhere() -> None:
    usage = {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13}
    text = response(status="incomplete", incomplete_details={"reason": "max_output_tokens"}, usage=usage)
    out = json.loads(OPENAI.write_reply(CHAT, DIALECT.read_reply(CREATE, text)))
    assert out["choices"][0]["finish_reason"] == "length"
    assert out["choices"][0]["message"]["role"] == "assistant"
    assert out["usage"]["total_tokens"] == 13


def test_an_answer_that_goes_on_in_the_background_has_no_end() -> None:
    text = response(status="queued", background=True)
    assert DIALECT.read_reply(CREATE, text).choices[0].finish is None
    assert DIALECT.scan_reply(CREATE, text).finish == ()


def test_usage_includes_what_was_cached_and_thought() -> None:
    usage = {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
        "output_tokens": 40,
        "output_tokens_details": {"reasoning_tokens": 30},
        "total_tokens": 140,
    }
    reply = DIALECT.read_reply(CREATE, response(usage=usage, service_tier="flex"))
    assert reply.usage == Usage(100, 40, 60, 10, 30, service_tier="flex")
    assert said(usage=reply.usage)["usage"] == usage


@pytest.mark.parametrize(
    ("error", "status", "retryable"),
    [
        ({"code": "rate_limit_exceeded", "message": "Slow"}, 429, True),
        ({"code": "insufficient_quota", "message": "Pay"}, 429, False),
        ({"code": "server_error", "message": "Oops"}, 502, True),
        ({"code": "invalid_prompt", "message": "No"}, 400, False),
    ],
)
def test_a_failed_answer_is_an_error_though_its_status_is_200(
    error: dict[str, str], status: int, *, retryable: bool
) -> None:
    for read in (DIALECT.scan_reply, DIALECT.read_reply):
        with pytest.raises(UpstreamError) as raised:
            read(CREATE, response(status="failed", error=error))
        told = raised.value
        assert (told.status, told.code, told.retryable, told.message) == (
            status,
            error["code"],
            retryable,
            error["message"],
        )
        body = json.loads(DIALECT.write_error(told, "id"))
        assert body["error"]["message"] == error["message"]


def test_what_is_said_of_our_key_stays_with_us() -> None:
    error = {"code": "invalid_api_key", "message": "sk-123 is wrong"}
    with pytest.raises(UpstreamAuthError) as raised:
        DIALECT.scan_reply(CREATE, response(status="failed", error=error))
    assert b"sk-123" not in DIALECT.write_error(raised.value, "id")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"<html>", b'{"id":"resp_1"}', b'{"output":7}', b'{"output":[{"type":1}]}']
)
def test_what_is_no_response_is_garbage(body: bytes) -> None:
    with pytest.raises(UpstreamGarbage):
        DIALECT.read_reply(CREATE, body)


# -- of other protocols ------------------------------------------------------------------------------------------


def test_an_answer_has_all_that_the_sdk_expects() -> None:
    out = said(TextPart("Hi"), created=7)
    assert out["id"] == "chatcmpl-1"
    assert (out["object"], out["status"], out["created_at"], out["model"]) == ("response", "completed", 7, "m")
    assert {"parallel_tool_calls", "tool_choice", "tools", "metadata", "text", "temperature", "top_p"} <= set(out)
    (message,) = out["output"]
    assert message["id"].startswith("msg_")
    assert message["content"] == [{"type": "output_text", "annotations": [], "logprobs": [], "text": "Hi"}]
    assert out["error"] is out["incomplete_details"] is None


def test_each_kind_of_part_has_its_item() -> None:
    citation = Citation("web_search_result_location", url="https://a", title="A", start=1, end=2)
    out = said(
        TextPart("Look", (citation,)),
        RefusalPart("No"),
        ToolCall("call_1", "f", ""),
        ToolCall("call_2", "g", "ls", "custom"),
        ToolCall("call_3", "h", "{broken"),
        OpaquePart("server_tool_use", Raw("strange.talk", b"{}")),
        finish=Finish(FinishReason.TOOL_CALLS),
    )
    message, first, second, third = out["output"]
    assert [part["type"] for part in message["content"]] == ["output_text", "refusal"]
    assert message["content"][0]["annotations"] == [
        {"type": "url_citation", "url": "https://a", "title": "A", "start_index": 1, "end_index": 2}
    ]
    assert message["content"][1]["refusal"] == "No"
    assert (first["type"], first["call_id"], first["arguments"], first["status"]) == (
        "function_call",
        "call_1",
        "{}",
        "completed",
    )
    assert (second["type"], second["input"]) == ("custom_tool_call", "ls")
    assert (third["arguments"], third["status"]) == ("{broken", "incomplete")
    assert len({item["id"] for item in out["output"]}) == 4


@pytest.mark.parametrize(
    ("finish", "status", "details"),
    [
        (Finish(FinishReason.LENGTH), "incomplete", {"reason": "max_output_tokens"}),
        (Finish(FinishReason.CONTENT_FILTER), "incomplete", {"reason": "content_filter"}),
        (Finish(FinishReason.REFUSAL), "incomplete", {"reason": "content_filter"}),
        (Finish(FinishReason.ERROR, detail="It broke"), "failed", None),
    ],
)
def test_each_end_has_its_status(finish: Finish, status: str, details: dict[str, str] | None) -> None:
    out = said(TextPart("a"), finish=finish)
    assert (out["status"], out["incomplete_details"]) == (status, details)
    assert out["error"] == ({"code": "server_error", "message": "It broke"} if status == "failed" else None)


@pytest.mark.parametrize("reason", [FinishReason.LENGTH, FinishReason.CONTENT_FILTER, FinishReason.REFUSAL])
def test_the_item_that_an_answer_ended_in_is_incomplete_as_it_is(reason: FinishReason) -> None:
    def statuses(*parts: Part) -> list[tuple[str, str | None]]:
        items = said(*parts, finish=Finish(reason))["output"]
        return [(item["type"], item.get("status")) for item in items]

    first, last = ToolCall("c", "f", "{}"), ToolCall("d", "g", '{"a":')
    assert statuses(TextPart("a")) == [("message", "incomplete")]
    assert statuses(TextPart("a"), first, last) == [
        ("message", "completed"),
        ("function_call", "completed"),
        ("function_call", "incomplete"),
    ]
    assert statuses(TextPart("a"), ToolCall("c", "f", "ls", "custom"))[1:] == [("custom_tool_call", "incomplete")]
    assert statuses(ReasoningPart("hm", provider="x")) == [("reasoning", None)]  # as in OpenAI's own


CUT = [it for it in ANSWERS if json.loads(it.response_body)["status"] == "incomplete"]


@pytest.mark.parametrize("recording", CUT, ids=str)
def test_a_recorded_answer_that_was_cut_is_said_alike_when_it_is_said_anew(recording: Recording) -> None:
    was = json.loads(recording.response_body)
    reply = DIALECT.read_reply(CREATE, recording.response_body)
    out = json.loads(DIALECT.write_reply(CREATE, attrs.evolve(reply, origin=None)))
    for name in ("status", "incomplete_details"):
        assert out[name] == was[name]
    statuses = [[(it["type"], it.get("status")) for it in each["output"]] for each in (out, was)]
    assert statuses[0] == statuses[1]


def test_an_answer_that_a_processor_cuts_is_incomplete_in_its_last_item() -> None:
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "x_new": 1}
    items = [item | {"content": [{"type": "output_text", "text": text, "annotations": []}]} for text in "ab"]
    reply = DIALECT.read_reply(CREATE, response(output=items))
    choice = attrs.evolve(reply.choices[0], finish=Finish(FinishReason.LENGTH))
    out = json.loads(DIALECT.write_reply(CREATE, attrs.evolve(reply, choices=(choice,))))
    assert (out["status"], out["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert out["output"] == [items[0], items[1] | {"status": "incomplete"}]


@pytest.mark.parametrize(
    ("tier", "word"), [("standard", "default"), ("default", "default"), ("priority", "priority"), (None, "default")]
)
def test_the_tier_that_answered_is_told_in_openais_word(tier: str | None, word: str) -> None:
    assert said(TextPart("a"), service_tier=tier, usage=Usage(1, 1, service_tier=tier))["service_tier"] == word


def test_what_another_provider_must_have_back_is_sealed_into_items() -> None:
    out = said(
        ReasoningPart("Hm", signature="SIG", provider="anthropic"),
        ReasoningPart("", redacted="RED", provider="anthropic"),
        ReasoningPart("Aha", member="reasoning_content", provider="openai"),
        ToolCall("c", "f", "{}", signature="TS"),
    )
    carried = [unseal(item["encrypted_content"]) for item in out["output"][:-1]]
    assert carried == [
        Carried("anthropic", signature="SIG"),
        Carried("anthropic", redacted="RED"),
        Carried("openai"),
        Carried("gemini", signature="TS", id="c", of_call=True),
    ]
    assert [item["summary"] for item in out["output"][:-1]] == [
        [{"type": "summary_text", "text": "Hm"}],
        [],
        [{"type": "summary_text", "text": "Aha"}],
        [],
    ]
    (turn,) = DIALECT.read_chat(CREATE, json.dumps({"input": out["output"]}).encode()).messages
    assert [type(part) for part in turn.content] == [ReasoningPart, ReasoningPart, ReasoningPart, ToolCall]
    assert turn.content[3] == ToolCall("c", "f", "{}", item_id=out["output"][-1]["id"], signature="TS")


def test_of_several_choices_the_first_is_the_answer() -> None:
    choices = tuple(Choice(index, (TextPart(str(index)),), STOP) for index in range(2))
    out = json.loads(DIALECT.write_reply(CREATE, ChatReply("", "m", choices)))
    assert [item["content"][0]["text"] for item in out["output"]] == ["0"]
    assert out["id"].startswith("resp_")
