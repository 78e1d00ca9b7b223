"""Requests: what they say survives, and so do their bytes."""

from __future__ import annotations

from random import Random

import attrs

from llmproxy_core.chat import ChatRequest, Message, TextPart
from llmproxy_core.dialect import Api
from llmproxy_core.errors import BadRequest
from llmproxy_core.testing.dialect import bodies, conversations
from llmproxy_core.testing.dialect.chance import for_many
from llmproxy_core.testing.dialect.declared import DeclaredDialect
from llmproxy_core.testing.dialect.json_changes import changes, text_changes_only, with_unknown
from llmproxy_core.testing.dialect.reading import read_chat, succeeds
from llmproxy_core.testing.dialect.sameness import differences, of_request
from llmproxy_core.testing.verdict import NotConforming

NOT_REQUESTS = (b"", b"null", b"[]", b'"text"', b"{", b'{"a":1', b"\xff\xfe", b'{"a":"\xff"}', b'{"a":1,"a":2}')
EDIT = " (edited 🚲)"


def says_what_it_declares(declared: DeclaredDialect) -> None:
    """A conversation that says declared words is written and read again, and says the same."""
    for api in declared.chat_apis():
        for word, chat in conversations.one_by_one(declared):
            _survives(declared, api, chat, f"{api.name}, a request that says {word!r}")

        def law(random: Random, api: Api = api) -> None:
            _survives(declared, api, conversations.some(declared, random), f"{api.name}, a request of several words")

        for_many(law, declared.examples)


def _survives(declared: DeclaredDialect, api: Api, chat: ChatRequest, where: str) -> None:
    chat = attrs.evolve(chat, stream=bool(api.streams))
    body = succeeds(
        where, lambda: declared.dialect.write_chat(api, chat), advice="write it, or do not declare the word in `says`"
    )
    back = read_chat(declared.dialect, api, body, where)
    elsewhere = {"model"} if "{model}" in api.path else set()
    if found := differences(of_request(back), of_request(chat), but=elsewhere):
        raise NotConforming(
            f"{where}: read again it says something else; write and read the field, or do not declare the word:\n  "
            + "\n  ".join(found)
            + f"\n  written as {body[:800]!r}"
        )
    if api.streams is None and back.stream != chat.stream:
        raise NotConforming(f"{where}: whether it asks for a stream is lost: {body[:300]!r}")


def reads_heads(declared: DeclaredDialect) -> None:
    """The cheap scan of a request tells the same as reading it; both refuse what is no request, as the caller's fault."""
    for api in declared.chat_apis():
        for where, body in bodies.requests(declared, api):
            chat = read_chat(declared.dialect, api, body, where)
            head = succeeds(where, lambda body=body: declared.dialect.read_head(api, body))  # type: ignore[misc]
            if "{model}" not in api.path and head.model != chat.model:
                raise NotConforming(f"{where}: read_head tells the model {head.model!r}, read_chat {chat.model!r}")
            if api.streams is None and head.stream != chat.stream:
                raise NotConforming(f"{where}: read_head tells stream={head.stream}, read_chat {chat.stream}")
        for body in NOT_REQUESTS:
            _refuses(declared, api, body)


def _refuses(declared: DeclaredDialect, api: Api, body: bytes) -> None:
    for name, read in (("read_head", declared.dialect.read_head), ("read_chat", declared.dialect.read_chat)):
        try:
            read(api, body)
        except BadRequest:
            continue
        except Exception as error:
            raise NotConforming(
                f"{api.name}: {name} raises {type(error).__name__} for the body {body!r}: raise BadRequest for what is "
                "no request (`llmproxy_core.wire.read_request`, `llmproxy_core.wire.Members` do)"
            ) from error
        raise NotConforming(
            f"{api.name}: {name} takes the body {body!r}: check it (`llmproxy_core.wire.read_request` does)"
        )


def keeps_untouched_requests(declared: DeclaredDialect) -> None:
    """A request that nobody changed is written byte for byte as it came, whatever it has in it."""
    for api in declared.chat_apis():
        for where, body in bodies.requests(declared, api):
            for how, text in ((where, body), (f"{where}, with unknown members", with_unknown(body))):
                chat = read_chat(declared.dialect, api, text, how)
                out = succeeds(how, lambda chat=chat: declared.dialect.write_chat(api, chat))  # type: ignore[misc]
                if out != text:
                    raise NotConforming(
                        f"{how}: untouched it is written in other bytes; keep what was read (`ChatOrigin`, `remember`; "
                        f"`llmproxy_core.wire.write_request` splices):\n  {text[:500]!r}\n  {out[:500]!r}"
                    )


def edits_one_message_alone(declared: DeclaredDialect) -> None:
    """When the text of one message is changed, its string changes, and nothing else: no byte of other messages."""
    for api in declared.chat_apis():
        for where, body in bodies.requests(declared, api):
            text = with_unknown(body)
            chat = read_chat(declared.dialect, api, text, where)
            for index, message in enumerate(chat.messages):
                if (edited := _edited(message)) is not None:
                    _edit(declared, api, text, chat, index, edited, f"{where}, message {index} edited")


def _edited(message: Message) -> tuple[Message, str] | None:
    """*message* with another last text, and the text as it was."""
    for place in reversed(range(len(message.content))):
        part = message.content[place]
        if isinstance(part, TextPart) and part.text.strip():
            edited = attrs.evolve(part, text=part.text + EDIT)
            content = (*message.content[:place], edited, *message.content[place + 1 :])
            return attrs.evolve(message, content=content), part.text
    return None


def _edit(
    declared: DeclaredDialect,
    api: Api,
    body: bytes,
    chat: ChatRequest,
    index: int,
    edited: tuple[Message, str],
    where: str,
) -> None:
    message, text = edited
    messages = (*chat.messages[:index], message, *chat.messages[index + 1 :])
    out = succeeds(where, lambda: declared.dialect.write_chat(api, attrs.evolve(chat, messages=messages)))
    if (found := text_changes_only(body, out, lambda was: text in was)) or not changes(body, out):
        raise NotConforming(
            f"{where}: more than its text changed, or nothing did; keep unknown members in `extra`, and splice into the "
            "bytes that were read (`with_members`):\n  " + "\n  ".join(map(str, found))
        )
    raw = chat.messages[index].raw
    start = -1 if raw is None else body.find(raw.text)
    if raw is None or start < 0:
        return
    before, after = body[:start], body[start + len(raw.text) :]
    if not (out.startswith(before) and out.endswith(after)):
        raise NotConforming(
            f"{where}: bytes outside of the message changed; write the others as they were read (`Wire.kept`, "
            f"`with_items`):\n  {body[:500]!r}\n  {out[:500]!r}"
        )


def prepares_what_it_is_asked(declared: DeclaredDialect) -> None:
    """`prepare` changes the model, the wish for a stream, or for its usage, and nothing else."""
    for api in declared.chat_apis():
        for where, body in bodies.requests(declared, api):
            _prepares(declared, api, with_unknown(body), where)


def _prepares(declared: DeclaredDialect, api: Api, body: bytes, where: str) -> None:
    dialect = declared.dialect
    if (same := succeeds(where, lambda: dialect.prepare(api, body))) != body:
        raise NotConforming(f"{where}: prepare changes what it was not asked to: {same[:300]!r}")
    head = dialect.read_head(api, body)
    if head.model is not None and "{model}" not in api.path:
        out = succeeds(where, lambda: dialect.prepare(api, body, model="another/model-2"))
        found = [it for it in changes(body, out) if (it.before, it.after) != (head.model, "another/model-2")]
        if found or dialect.read_head(api, out).model != "another/model-2":
            raise NotConforming(f"{where}: prepare(model=…) must set the model, and that alone: {out[:300]!r}")
    if api.streams is not None:
        return
    for stream in (True, False):
        out = succeeds(where, lambda stream=stream: dialect.prepare(api, body, stream=stream, ask_usage=True))  # type: ignore[misc]
        again = dialect.read_head(api, out)
        if again.stream is not stream or (stream and not again.wants_usage):
            raise NotConforming(f"{where}: prepare(stream={stream}, ask_usage=True) gives {out[:300]!r}")
        members = {it.place.partition(".")[0] for it in changes(body, out)}
        if len(members) > 2:
            raise NotConforming(
                f"{where}: prepare(stream={stream}) changes {', '.join(sorted(members))}; change the fewest members"
            )
