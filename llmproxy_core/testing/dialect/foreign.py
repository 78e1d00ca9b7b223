"""Requests and answers as if they had been read from a protocol that nobody here speaks."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from llmproxy_core.chat import (
    AudioPart,
    BuiltinTool,
    ChatOrigin,
    ChatReply,
    ChatRequest,
    DocumentPart,
    ImagePart,
    Message,
    OpaquePart,
    Part,
    Raw,
    ReasoningPart,
    Source,
    TextPart,
    Tool,
    ToolCall,
    ToolResult,
    VideoPart,
    remember,
)
from llmproxy_core.testing.chance import seeded
from llmproxy_core.testing.dialect.answers import answer
from llmproxy_core.testing.dialect.conversations import PDF, SCHEMA, Conversation
from llmproxy_core.testing.dialect.declared import DeclaredDialect
from llmproxy_core.testing.dialect.event_orders import STRANGER
from llmproxy_core.testing.dialect.says import OF_ANSWERS, Says, with_needs

API = f"{STRANGER}.chat"
_RAW = b'{"strange":true}'


def as_foreign(chat: ChatRequest) -> ChatRequest:
    """*chat*, with all the memory of a protocol that its reader leaves."""
    messages = tuple(remember(attrs.evolve(message), API, _RAW) for message in chat.messages)
    chat = attrs.evolve(chat, messages=messages)
    return attrs.evolve(chat, origin=ChatOrigin(API, {"strange": b"true"}, chat, _RAW))


def foreign_reply(reply: ChatReply) -> ChatReply:
    """*reply*, with all the memory of a protocol that its reader leaves."""
    choices = tuple(remember(attrs.evolve(choice, extra={"strange": b"1"}), API, _RAW) for choice in reply.choices)
    reply = attrs.evolve(reply, choices=choices, extra={"strange": b"1"})
    return attrs.evolve(reply, origin=ChatOrigin(API, {"strange": b"1"}, reply, _RAW))


# -- requests ----------------------------------------------------------------------------------------------------


def word_by_word(declared: DeclaredDialect) -> Iterator[tuple[Says, ChatRequest]]:
    """For every word there is, declared or not, a request of another protocol that says it."""
    for word in sorted(set(Says) - OF_ANSWERS):
        words = with_needs(frozenset({word}))
        words |= {Says.PAST_REASONING} if Says.REASONING in words else set()
        yield word, as_foreign(Conversation(words, seeded(0), STRANGER).request(declared.model))


def everything(declared: DeclaredDialect) -> ChatRequest:
    """One request that says all that can be said."""
    leave_out = {Says.PREFIX, Says.JSON_OBJECT, Says.EFFORT, Says.ALLOWED_TOOLS}
    chat = Conversation(frozenset(Says) - leave_out, seeded(1), STRANGER).request(declared.model)
    odd: tuple[Part, ...] = (
        TextPart("unknown members", extra={"strange": b"1"}),
        OpaquePart("strange_part", Raw(API, b'{"type":"strange_part"}')),
        VideoPart(Source(url="https://example.com/a.mp4")),
        ImagePart(Source(file_id="file-1"), "high"),
        DocumentPart(Source(text="A text.", media_type="text/plain"), "Title", "Context", True),
        DocumentPart(Source(url="https://example.com/a.pdf")),
    )
    messages = (*chat.messages[:-1], Message("user", odd, extra={"strange": b"1"}), *chat.messages[-1:])
    tools = (*chat.tools, Tool("own", extra={"strange": b"1"}), BuiltinTool("strange_search", Raw(API, b"{}")))
    chat = attrs.evolve(
        chat,
        messages=messages,
        tools=tools,
        temperature=1.7,
        top_p=0.9,
        stop=tuple(f"stop {index}" for index in range(9)),
        modalities=("text", "audio"),
        audio=b'{"voice":"alloy"}',
        prediction=b'{"type":"content","content":"x"}',
        extra={"strange": b"1", "strange_too": b'{"a":[1]}'},
    )
    return as_foreign(chat)


def odd_histories(model: str) -> Iterator[tuple[str, ChatRequest]]:
    """Conversations that are allowed in some protocol, and that others choke on."""
    user, call = Message("user", (TextPart("Hello"),)), ToolCall("call00001", "weather", '{"city":"Köln"}')
    result = Message("tool", (ToolResult("call00001", (TextPart("Rain"),)),))
    asked = Message("assistant", (call,))
    tools = (Tool("weather", None, SCHEMA),)
    cases: dict[str, tuple[Message, ...]] = {
        "no message at all": (),
        "no content": (Message("user", ()),),
        "an empty text": (Message("user", (TextPart(""),)),),
        "an assistant that said nothing": (user, Message("assistant", ()), user),
        "an assistant that ends in a space": (user, Message("assistant", (TextPart("So "),))),
        "the assistant first": (Message("assistant", (TextPart("Hi"),)), user),
        "the system last": (user, Message("system", (TextPart("Be brief."),))),
        "the system alone": (Message("system", (TextPart("Be brief."),)),),
        "an empty system": (Message("system", (TextPart(""),)), user),
        "users in a row": (user, user, user),
        "assistants in a row": (
            user,
            Message("assistant", (TextPart("A"),)),
            Message("assistant", (TextPart("B"),)),
            user,
        ),
        "a call without a result": (user, asked, user),
        "a result without a call": (user, result, user),
        "a result before its call": (user, result, asked),
        "results in one turn": (user, asked, Message("tool", (*result.content, *result.content))),
        "a result without content": (user, asked, Message("tool", (ToolResult("call00001", ()),))),
        "arguments that are no JSON": (user, Message("assistant", (attrs.evolve(call, arguments='{"city":'),)), result),
        "arguments that are no object": (user, Message("assistant", (attrs.evolve(call, arguments="[1]"),)), result),
        "no arguments": (user, Message("assistant", (attrs.evolve(call, arguments=""),)), result),
        "a call without an id": (user, Message("assistant", (attrs.evolve(call, id=""),)), result),
        "a call of an odd name": (user, Message("assistant", (attrs.evolve(call, name="my tool!"),)), result),
        "thinking alone": (user, Message("assistant", (ReasoningPart("Hm.", provider=STRANGER),)), user),
        "speech of the assistant": (user, Message("assistant", (AudioPart(Source(file_id="a"), "a"),)), user),
        "a document": (Message("user", (DocumentPart(Source(data=PDF, media_type="application/pdf")),)),),
    }
    for how, messages in cases.items():
        yield how, as_foreign(ChatRequest(model, messages, tools=tools))
        yield f"{how}, and no tools", as_foreign(ChatRequest(model, messages))


# -- answers -----------------------------------------------------------------------------------------------------

_ALWAYS = frozenset({Says.CACHED_USAGE, Says.REASONING_USAGE, Says.CACHE_WRITE_USAGE})
_ANSWERS: tuple[frozenset[Says], ...] = (
    frozenset(),
    frozenset({Says.TOOLS, Says.PARALLEL_CALLS, Says.CALL_SIGNATURES}),
    frozenset({Says.REASONING, Says.SIGNATURES, Says.REDACTED, Says.ENCRYPTED}),
    frozenset({Says.CITATIONS, Says.LOGPROBS}),
    frozenset({Says.REFUSALS}),
    frozenset({Says.N}),
    frozenset({Says.FINISH_LENGTH}),
    frozenset({Says.FINISH_FILTER}),
    frozenset({Says.FINISH_REFUSAL}),
    frozenset({Says.FINISH_ERROR}),
)


def replies() -> Iterator[tuple[str, ChatReply]]:
    """Answers of another protocol, of every kind."""
    for words in _ANSWERS:
        made = answer(words | _ALWAYS, seeded(0), "strange-model", STRANGER)
        yield ", ".join(sorted(words)) or "text", foreign_reply(made)
    made = answer(_ALWAYS, seeded(0), "strange-model", STRANGER)
    [choice] = made.choices
    yield "no choices", foreign_reply(attrs.evolve(made, choices=()))
    yield "no content", foreign_reply(attrs.evolve(made, choices=(attrs.evolve(choice, content=()),)))
    yield "no finish", foreign_reply(attrs.evolve(made, choices=(attrs.evolve(choice, finish=None),)))
    yield "no usage", foreign_reply(attrs.evolve(made, usage=None))
    yield "no id", foreign_reply(attrs.evolve(made, id="", model="", created=None))
    strange = OpaquePart("strange_part", Raw(API, b'{"type":"strange_part"}'))
    speech = AudioPart(Source(data="AAAA"), "audio_1", "Hi")
    odd = attrs.evolve(choice, content=(strange, *choice.content, speech))
    yield "what nobody knows", foreign_reply(attrs.evolve(made, choices=(odd,)))
