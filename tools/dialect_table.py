"""
Writes docs/dialects/README.md: what survives between each pair of protocols, found out by trying it.

`python tools/dialect_table.py` writes it; a test holds that it is not stale.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import attrs

from llmproxy_core.chat import ChatReply, ChatRequest
from llmproxy_core.dialect import Api, Dialect, Operation
from llmproxy_core.errors import ProxyError
from llmproxy_core.reply_events import Assembler, events_of
from llmproxy_core.translation import Translation
from tools.configuration_docs import ROOT, own_registry
from tools.dialect_features import ANSWERS, MODELS, REQUESTS, Feature

DOCS = ROOT / "docs" / "dialects" / "README.md"
UNSAID, KEPT, REFUSED, UNTOLD, LOST = "–", "yes", "refused", "not told", "no"

INTRODUCTION = """\
# Protocols, and what survives between them

<!-- Written by tools/dialect_table.py, which tries it: change the dialects, then run it. -->

A client and an LLM that speak the same protocol get each other's bytes: everything passes, also what nobody here has
heard of, and only what a processor changed is another. Where they speak different ones, a request is written anew
from its meaning. What its new protocol cannot say is answered with a 400 that names the field and the LLM, or, on a
route with `on_unsupported = "drop"`, left out; `x-llmproxy-changed` and the log line tell of it. What is changed as the
tables say (clamped, cleaned, …), and advice that is left out (which changes neither the answer nor its form), is told
there in both modes.
"""

REQUEST_TEXT = """
## Requests

By columns: what the LLM speaks. *yes*: it arrives with its meaning. *refused*: a 400, or left out. *dropped*: advice,
always left out; *not told*: left out without a word, or told in text. Other words say how it was changed. Clients of
the protocols that are named in the second column can say it; where what becomes of it depends on the client, the cell
says so. Some of it depends on the model: the table was made with {models}.

"""

ANSWER_TEXT = """
## Answers

By columns: what the client speaks. *yes*: it arrives with its meaning, plain and streamed. *no*: the client's protocol
has no word for it. LLMs of the protocols in the second column say it.

"""


@attrs.frozen
class Spoken:
    """A dialect, and how chat is called in it."""

    dialect: Dialect
    plain: Api
    streamed: Api

    @classmethod
    def all(cls, dialects: Mapping[str, Dialect]) -> list[Spoken]:
        found = []
        for dialect in dialects.values():
            plain, streamed = (dialect.api_for(Operation.CHAT, stream=it) for it in (False, True))
            if plain is not None and streamed is not None:
                found.append(cls(dialect, plain, streamed))
        order = list(MODELS)
        return sorted(found, key=lambda it: (it.name not in MODELS, order.index(it.name) if it.name in MODELS else 0))

    @property
    def name(self) -> str:
        return self.dialect.name


# -- requests ----------------------------------------------------------------------------------------------------------


def asked_by(client: Spoken, feature: Feature) -> ChatRequest | None:
    """The request as a client of that protocol makes it; None when it cannot say it."""
    try:
        body = client.dialect.write_chat(client.plain, feature.said)
        chat = client.dialect.read_chat(client.plain, body)
    except ProxyError:
        return None
    return chat if feature.look(chat) == feature.look(feature.said) else None


def sent_to(llm: Spoken, feature: Feature, chat: ChatRequest) -> str:
    """What becomes of *feature* on the way of *chat* to an LLM of that protocol, in a word."""
    if chat.origin is not None and chat.origin.api == llm.plain.form:
        return KEPT
    translation = Translation()
    named = attrs.evolve(chat, model=MODELS.get(llm.name, "m"))
    try:
        body = llm.dialect.write_chat(llm.plain, named, translation)
        arrived = llm.dialect.read_chat(llm.plain, body)
    except ProxyError:
        return REFUSED
    words = [word for word in dict.fromkeys(translation.changes.values()) if word != "defaulted"]
    if feature.look(arrived) == feature.look(chat):
        return KEPT
    return ", ".join(words) or UNTOLD


# -- answers -----------------------------------------------------------------------------------------------------------


def said_by(llm: Spoken, feature: Feature) -> ChatReply | None:
    """The answer as an LLM of that protocol gives it; None when it cannot say it."""
    try:
        reply = llm.dialect.read_reply(llm.plain, llm.dialect.write_reply(llm.plain, feature.said))
    except ProxyError:
        return None
    return reply if feature.look(reply) == feature.look(feature.said) else None


def told_to(client: Spoken, feature: Feature, reply: ChatReply) -> str:
    """What becomes of *feature* on the way of *reply* to a client of that protocol."""
    whole = client.dialect.read_reply(client.plain, client.dialect.write_reply(client.plain, reply))
    wanted = feature.look(reply)
    plain, streamed = feature.look(whole) == wanted, feature.look(streamed_to(client, reply)) == wanted
    if plain and streamed:
        return KEPT
    if plain or streamed:
        return "plain only" if plain else "streamed only"
    return LOST


def streamed_to(client: Spoken, reply: ChatReply) -> ChatReply:
    """*reply* as a client of that protocol reads it off a stream."""
    writer = client.dialect.writer(client.streamed, usage=True)
    data = b"".join(writer.write([event], None) for event in events_of(reply))
    reader = client.dialect.reader(client.streamed)
    assembler = Assembler()
    for frame in [*reader.feed(data), *reader.end()]:
        assembler.feed(frame.events)
    return assembler.reply()


# -- the page ----------------------------------------------------------------------------------------------------------


def cell(outcomes: Mapping[str, str]) -> str:
    """*outcomes* by who began: the usual one, and who differs."""
    if not outcomes:
        return UNSAID
    words = list(outcomes.values())
    usual = max(words, key=words.count)
    others = [f"{name}: {word}" for name, word in outcomes.items() if word != usual]
    return "; ".join([usual, *others])


def request_rows(all_spoken: Sequence[Spoken]) -> Iterable[list[str]]:
    for feature in REQUESTS:
        asked = {it.name: chat for it in all_spoken if (chat := asked_by(it, feature)) is not None}
        cells = [
            cell({name: sent_to(llm, feature, chat) for name, chat in asked.items() if name != llm.name})
            for llm in all_spoken
        ]
        yield [feature.label, ", ".join(asked) or UNSAID, *cells]


def answer_rows(all_spoken: Sequence[Spoken]) -> Iterable[list[str]]:
    for feature in ANSWERS:
        said = {it.name: reply for it in all_spoken if (reply := said_by(it, feature)) is not None}
        cells = [
            cell({name: told_to(client, feature, reply) for name, reply in said.items() if name != client.name})
            for client in all_spoken
        ]
        yield [feature.label, ", ".join(said) or UNSAID, *cells]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def page(dialects: Mapping[str, Dialect]) -> str:
    """The text of docs/dialects/README.md."""
    spoken = Spoken.all(dialects)
    names = [f"[{it.name}]({it.name}.md)" for it in spoken]
    return "".join(
        [
            INTRODUCTION,
            REQUEST_TEXT.format(models=", ".join(f"`{name}`" for name in dict.fromkeys(MODELS.values()))),
            table(["feature", "clients", *names], request_rows(spoken)),
            ANSWER_TEXT,
            table(["feature", "LLMs", *names], answer_rows(spoken)),
        ]
    )


def written(path: Path = DOCS) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(page(own_registry().dialects), encoding="utf-8")


if __name__ == "__main__":
    written()
