"""What the demo answers to a conversation, before any protocol."""

import json

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core.chat import (
    BuiltinTool,
    ChatReply,
    ChatRequest,
    FinishReason,
    ImagePart,
    Message,
    Raw,
    ResponseFormat,
    Source,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from llmproxy_core.errors import BadRequest, Unsupported
from llmproxy_core.reply_events import Assembler
from llmproxy_core.usage import Usage
from llmproxy_server.demo_stream import pieces, steps
from llmproxy_server.demo_text import answer
from llmproxy_server.demo_tokens import tokens

WEATHER = Tool(
    "get_weather",
    parameters=b'{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"}},"required":["city","days"]}',
)
CLOCK = Tool("get_time")


def question(text: str) -> ChatRequest:
    return ChatRequest("demo", (Message("user", (TextPart(text),)),))


def reply_to(chat: ChatRequest) -> ChatReply:
    return answer(chat, model="demo", created=1)


SKY = question("Why is the sky blue?")


# -- text ----------------------------------------------------------------------------------------------------------


def test_the_same_question_has_the_same_answer_and_id() -> None:
    assert reply_to(SKY) == reply_to(question("Why is the sky blue?"))


def test_another_question_has_another_answer_and_id() -> None:
    other = reply_to(question("Why is the sea green?"))

    assert other.text != reply_to(SKY).text
    assert other.id != reply_to(SKY).id


def test_the_answer_quotes_the_last_question_in_several_sentences() -> None:
    chat = attrs.evolve(SKY, messages=(*SKY.messages, Message("assistant", ()), *question("And at night?").messages))

    text = reply_to(chat).text

    assert "“And at night?”" in text
    assert "sky" not in text
    assert text.count(".") >= 4


def test_a_question_of_braces_and_percent_signs_is_only_text() -> None:
    assert "{0} %s {question}" in reply_to(question("{0} %s {question}")).text


@pytest.mark.parametrize("text", ["", "  \n ", "?!"])
def test_a_question_without_words_is_answered(text: str) -> None:
    assert reply_to(question(text)).text


def test_every_choice_has_its_own_index_and_text() -> None:
    reply = reply_to(attrs.evolve(SKY, n=3))

    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert len({choice.text for choice in reply.choices}) == 3


def test_the_text_ends_before_the_stop_sequence_that_comes_first() -> None:
    whole = reply_to(SKY).text
    words = whole.split()

    choice = reply_to(attrs.evolve(SKY, stop=(words[9], "", "not in it", words[5]))).choices[0]

    assert choice.text == whole[: whole.find(words[5])]
    assert choice.finish is not None
    assert (choice.finish.reason, choice.finish.stop_sequence) == (FinishReason.STOP, words[5])


@given(st.text(), st.integers(1, 300))
def test_an_answer_keeps_to_the_bound_of_tokens(text: str, most: int) -> None:
    whole = reply_to(question(text))
    cut = reply_to(attrs.evolve(question(text), max_output_tokens=most))

    assert whole.usage is not None
    assert cut.usage is not None
    assert whole.text.startswith(cut.text)
    assert cut.usage.output_tokens == min(most, whole.usage.output_tokens)
    assert cut.choices[0].finish is not None
    assert (cut.choices[0].finish.reason is FinishReason.LENGTH) == (cut.text != whole.text)


@pytest.mark.parametrize(
    ("chat", "param"),
    [
        (ChatRequest("demo", ()), "messages"),
        (attrs.evolve(SKY, n=0), "n"),
        (attrs.evolve(SKY, n=129), "n"),
        (attrs.evolve(SKY, max_output_tokens=0), "max_tokens"),
    ],
    ids=["no messages", "no choices", "too many choices", "no tokens"],
)
def test_a_bound_out_of_range_is_refused_by_its_name(chat: ChatRequest, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        reply_to(chat)

    assert caught.value.param == param


# -- tokens --------------------------------------------------------------------------------------------------------


def test_tokens_are_four_bytes_each_with_four_more_for_a_message() -> None:
    """By hand: 4 + 2 (“abcde”), 4 + 1 (“é” is two bytes) + 64 (an image), and 3 for the tool's `get_time` and `now`."""
    messages = (
        Message("system", (TextPart("abcde"),)),
        Message("user", (TextPart("é"), ImagePart(Source(url="https://example.com/a.png")))),
    )
    chat = ChatRequest("demo", messages, tools=(Tool("get_time", "now"),))

    reply = reply_to(chat)

    assert reply.usage == Usage(input_tokens=4 + 2 + 4 + 1 + 64 + 3, output_tokens=tokens(reply.text))


def test_the_tokens_of_all_choices_add_up() -> None:
    reply = reply_to(attrs.evolve(SKY, n=3))

    assert reply.usage is not None
    assert reply.usage.output_tokens == sum(-(-len(choice.text.encode()) // 4) for choice in reply.choices)


# -- tools ---------------------------------------------------------------------------------------------------------


def call_of(reply: ChatReply) -> ToolCall:
    (part,) = reply.choices[0].content
    assert isinstance(part, ToolCall)
    return part


def finish_of(reply: ChatReply) -> FinishReason:
    assert reply.choices[0].finish is not None
    return reply.choices[0].finish.reason


def test_a_required_call_has_arguments_by_the_schema() -> None:
    reply = reply_to(attrs.evolve(SKY, tools=(WEATHER, CLOCK), tool_choice=ToolChoice("required")))

    assert call_of(reply).name == "get_weather"
    assert json.loads(call_of(reply).arguments) == {"city": "Why is the sky blue?", "days": 1}
    assert finish_of(reply) is FinishReason.TOOL_CALLS


def test_a_named_call_finishes_with_stop_as_openai_does() -> None:
    reply = reply_to(attrs.evolve(SKY, tools=(WEATHER, CLOCK), tool_choice=ToolChoice("named", ("get_time",))))

    assert (call_of(reply).name, call_of(reply).arguments) == ("get_time", "{}")
    assert finish_of(reply) is FinishReason.STOP


def test_a_legacy_function_call_has_no_id() -> None:
    legacy = attrs.evolve(WEATHER, kind="legacy")

    call = call_of(reply_to(attrs.evolve(SKY, tools=(legacy,), tool_choice=ToolChoice("named", ("get_weather",)))))

    assert (call.kind, call.id) == ("legacy", "")


def test_a_custom_tool_gets_text() -> None:
    custom = Tool("note", kind="custom")

    call = call_of(reply_to(attrs.evolve(SKY, tools=(custom,), tool_choice=ToolChoice("required"))))

    assert (call.kind, call.arguments) == ("custom", "Why is the sky blue?")


def test_a_call_that_nobody_forces_is_not_made() -> None:
    for choice in (None, ToolChoice("auto"), ToolChoice("none"), ToolChoice("allowed", ("get_time",))):
        assert reply_to(attrs.evolve(SKY, tools=(WEATHER, CLOCK), tool_choice=choice)).text == reply_to(SKY).text


def test_arguments_keep_to_the_bound_of_tokens() -> None:
    forced = attrs.evolve(SKY, tools=(WEATHER,), tool_choice=ToolChoice("required"), max_output_tokens=2)

    reply = reply_to(forced)

    assert call_of(reply).arguments == '{"city":'
    assert finish_of(reply) is FinishReason.LENGTH


@pytest.mark.parametrize(
    ("tools", "choice"),
    [((), ToolChoice("required")), ((WEATHER,), ToolChoice("named", ("get_time",)))],
    ids=["no tools", "no such tool"],
)
def test_a_forced_tool_that_is_not_there_is_refused(tools: tuple[Tool, ...], choice: ToolChoice) -> None:
    with pytest.raises(BadRequest) as caught:
        reply_to(attrs.evolve(SKY, tools=tools, tool_choice=choice))

    assert caught.value.param == "tool_choice"


def test_only_the_callers_own_tools_can_be_called() -> None:
    search = BuiltinTool("web_search", Raw("openai.chat", b"{}"))

    with pytest.raises(Unsupported):
        reply_to(attrs.evolve(SKY, tools=(search,), tool_choice=ToolChoice("required")))


def test_a_tool_result_is_answered_with_text_that_quotes_it() -> None:
    """Even where a call is still required: clients that never change `tool_choice` would go round for ever."""
    forced = attrs.evolve(SKY, tools=(WEATHER,), tool_choice=ToolChoice("required"))
    call = call_of(reply_to(forced))
    result = ToolResult(call.id, (TextPart("21 degrees"),))

    reply = reply_to(
        attrs.evolve(forced, messages=(*forced.messages, Message("assistant", (call,)), Message("tool", (result,))))
    )

    assert "“21 degrees”" in reply.text
    assert finish_of(reply) is FinishReason.STOP


def test_a_call_of_a_later_turn_has_another_id() -> None:
    forced = attrs.evolve(SKY, tools=(CLOCK,), tool_choice=ToolChoice("required"))
    first = call_of(reply_to(forced))
    history = (*forced.messages, Message("assistant", (first,)), Message("tool", (ToolResult(first.id, ()),)))

    second = call_of(reply_to(attrs.evolve(forced, messages=(*history, *forced.messages))))

    assert second.id != first.id


# -- formats -------------------------------------------------------------------------------------------------------


def test_a_json_object_is_answered_where_one_is_asked_for() -> None:
    reply = reply_to(attrs.evolve(SKY, response_format=ResponseFormat("json_object")))

    assert json.loads(reply.text) == {"answer": "Why is the sky blue?"}


def test_a_json_schema_is_answered_with_what_fits_it() -> None:
    wanted = ResponseFormat("json_schema", name="day", schema=WEATHER.parameters)

    reply = reply_to(attrs.evolve(SKY, response_format=wanted))

    assert json.loads(reply.text) == {"city": "Why is the sky blue?", "days": 1}


# -- pieces --------------------------------------------------------------------------------------------------------


@given(st.text())
def test_pieces_are_short_and_lose_nothing(text: str) -> None:
    cut = pieces(text)

    assert "".join(cut) == text
    assert all(len(piece.strip()) <= 12 for piece in cut)


@pytest.mark.parametrize(
    "chat",
    [
        SKY,
        attrs.evolve(SKY, n=3),
        attrs.evolve(SKY, tools=(WEATHER,), tool_choice=ToolChoice("required"), n=2),
        attrs.evolve(SKY, stop=("T", "Y")),  # every opening begins so: nothing is left
    ],
    ids=["text", "three choices", "calls", "nothing"],
)
def test_the_stream_of_a_reply_gives_the_reply(chat: ChatRequest) -> None:
    assembler = Assembler()

    for events in steps(reply_to(chat)):
        assembler.feed(events)

    assert assembler.reply() == reply_to(chat)


def test_the_choices_of_a_stream_come_in_turn() -> None:
    events = [events[-1] for events in steps(reply_to(attrs.evolve(SKY, n=2)))]

    assert [getattr(event, "choice", None) for event in events[:4]] == [0, 1, 0, 1]
