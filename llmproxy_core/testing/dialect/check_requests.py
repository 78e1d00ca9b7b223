"""Requests: what they say survives, and so do their bytes."""

from __future__ import annotations

from random import Random

import attrs

from llmproxy_core.chat import ChatRequest, Message, TextPart
from llmproxy_core.dialect import Api
from llmproxy_core.errors import BadRequest
from llmproxy_core.testing.chance import for_many
from llmproxy_core.testing.dialect import bodies, conversations
from llmproxy_core.testing.dialect.case import Case
from llmproxy_core.testing.dialect.declared import DeclaredDialect
from llmproxy_core.testing.dialect.json_changes import changes, text_changes_only, with_unknown
from llmproxy_core.testing.dialect.sameness import differences, of_request

NOT_REQUESTS = (b"", b"null", b"[]", b'"text"', b"{", b'{"a":1', b"\xff\xfe", b'{"a":"\xff"}', b'{"a":1,"a":2}')
EDIT = " (edited 🚲)"
_NO_PARAMETERS = frozenset({"messages", "tools", "extra", "origin"})


def says_what_it_declares(declared: DeclaredDialect) -> None:
    """A conversation that says declared words is written and read again, and says the same."""
    for api in declared.chat_apis():
        for word, chat in conversations.one_by_one(declared):
            _survives(Case(declared, api, f"a request that says {word!r}"), chat)

        def law(random: Random, api: Api = api) -> None:
            _survives(Case(declared, api, "a request of several words"), conversations.some(declared, random))

        for_many(law, declared.examples)


def _survives(case: Case, chat: ChatRequest) -> None:
    chat = attrs.evolve(chat, stream=bool(case.api.streams))
    body = case.write_chat(chat)
    back = case.read_chat(body)
    elsewhere = {"model"} if "{model}" in case.api.path else set()
    if found := differences(of_request(back), of_request(chat), but=elsewhere):
        case.fail(
            "written and read again it says something else; write and read the field, or do not declare the word",
            [*found, f"written as {body[:800]!r}"],
        )
    if case.api.streams is None and back.stream != chat.stream:
        case.fail(f"whether it asks for a stream is lost: {body[:300]!r}")


def reads_heads(declared: DeclaredDialect) -> None:
    """The cheap scan of a request tells the same as reading it; what is no request is refused as the caller's fault."""
    for api in declared.chat_apis():
        for case, body in bodies.requests(declared, api):
            chat = case.read_chat(body)
            head = case.gives(declared.dialect.read_head, api, body)
            if "{model}" not in api.path and head.model != chat.model:
                case.fail(f"read_head tells the model {head.model!r}, read_chat {chat.model!r}")
            if api.streams is None and head.stream != chat.stream:
                case.fail(f"read_head tells stream={head.stream}, read_chat {chat.stream}")
            _tells_parameters(case, chat, body)
        for body in NOT_REQUESTS:
            _refuses(Case(declared, api, f"the body {body!r}"), body)


def _tells_parameters(case: Case, chat: ChatRequest, body: bytes) -> None:
    found = case.gives(case.dialect.read_parameters, case.api, body)
    for field in attrs.fields(ChatRequest):
        told, said = getattr(found, field.name), getattr(chat, field.name)
        if field.name not in _NO_PARAMETERS and told != said:
            case.fail(f"read_parameters tells {field.name}={told!r}, read_chat {said!r}")


def _refuses(case: Case, body: bytes) -> None:
    for name, read in (("read_head", case.dialect.read_head), ("read_chat", case.dialect.read_chat)):
        try:
            read(case.api, body)
        except BadRequest:
            continue
        except Exception as error:  # noqa: BLE001 - it is the finding
            case.fail(
                f"{name} raises {error!r}; raise BadRequest for what is no request (`llmproxy_core.wire.read_request` "
                "and `llmproxy_core.wire.Members` do)"
            )
        case.fail(f"{name} takes it; check it (`llmproxy_core.wire.read_request` and `read_head` do)")


def keeps_untouched_requests(declared: DeclaredDialect) -> None:
    """A request that nobody changed is written byte for byte as it came, whatever it has in it."""
    for api in declared.chat_apis():
        for case, body in bodies.requests(declared, api):
            _keeps(case, body)
            _keeps(case.but("with unknown members"), with_unknown(body))


def _keeps(case: Case, body: bytes) -> None:
    if (out := case.write_chat(case.read_chat(body))) != body:
        case.fail(
            "untouched it is written in other bytes; keep what was read (`remember`, `ChatOrigin`; "
            "`llmproxy_core.wire.write_request` splices)",
            [body[:500], out[:500]],
        )


def edits_one_message_alone(declared: DeclaredDialect) -> None:
    """When the text of one message is changed its string changes, and nothing else: no byte of other messages."""
    for api in declared.chat_apis():
        for case, body in bodies.requests(declared, api):
            text = with_unknown(body)
            chat = case.read_chat(text)
            for index, message in enumerate(chat.messages):
                if (edited := _edited(message)) is not None:
                    _edit(case.but(f"message {index} edited"), text, chat, index, edited)


def _edited(message: Message) -> tuple[Message, str] | None:
    """*message* with another last text, and that text as it was."""
    for place in reversed(range(len(message.content))):
        part = message.content[place]
        if isinstance(part, TextPart) and part.text.strip():
            edited = attrs.evolve(part, text=part.text + EDIT)
            content = (*message.content[:place], edited, *message.content[place + 1 :])
            return attrs.evolve(message, content=content), part.text
    return None


def _edit(case: Case, body: bytes, chat: ChatRequest, index: int, edited: tuple[Message, str]) -> None:
    message, text = edited
    messages = (*chat.messages[:index], message, *chat.messages[index + 1 :])
    out = case.write_chat(attrs.evolve(chat, messages=messages))
    if (found := text_changes_only(body, out, lambda was: text in was)) or not changes(body, out):
        case.fail(
            "more than its text changed, or nothing did; keep unknown members in `extra`, and splice into the bytes "
            "that were read (`with_members`, `with_items`)",
            found or [f"nothing, in {out[:500]!r}"],
        )
    raw = chat.messages[index].raw
    start = -1 if raw is None else body.find(raw.text)
    if raw is None or start < 0:
        return
    before, after = body[:start], body[start + len(raw.text) :]
    if not (out.startswith(before) and out.endswith(after)):
        case.fail(
            "bytes outside of the message changed; write the others as they were read (`Wire.kept`, `with_items`)",
            [body[:500], out[:500]],
        )


def prepares_what_it_is_asked(declared: DeclaredDialect) -> None:
    """`prepare` changes the model, the wish for a stream, or for its usage, and nothing else."""
    for api in declared.chat_apis():
        for case, body in bodies.requests(declared, api):
            _prepares(case, with_unknown(body))


def _prepares(case: Case, body: bytes) -> None:
    dialect, api = case.dialect, case.api
    if (same := case.gives(dialect.prepare, api, body)) != body:
        case.fail(f"prepare changes what it was not asked to: {same[:300]!r}")
    head = dialect.read_head(api, body)
    if head.model is not None and "{model}" not in api.path:
        out = case.gives(dialect.prepare, api, body, model="another/model-2")
        found = [it for it in changes(body, out) if (it.before, it.after) != (head.model, "another/model-2")]
        if found or dialect.read_head(api, out).model != "another/model-2":
            case.fail(f"prepare(model=…) must set the model, and that alone: {out[:300]!r}", found)
    if api.streams is None:
        for stream in (True, False):
            out = case.gives(dialect.prepare, api, body, stream=stream, ask_usage=True)
            again = dialect.read_head(api, out)
            if again.stream is not stream or (stream and not again.wants_usage):
                case.fail(f"prepare(stream={stream}, ask_usage=True) asks for something else: {out[:300]!r}")
            if len({it.place.partition(".")[0] for it in changes(body, out)}) > 2:
                case.fail(f"prepare(stream={stream}) must change the fewest members", changes(body, out))
