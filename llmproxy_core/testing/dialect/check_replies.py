"""Whole answers: what they say survives, and so do their bytes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import attrs

from llmproxy_core.chat import ChatReply, TextPart
from llmproxy_core.dialect import Api
from llmproxy_core.errors import RateLimited, UpstreamError, UpstreamGarbage
from llmproxy_core.testing.chance import for_many
from llmproxy_core.testing.dialect import answers, bodies
from llmproxy_core.testing.dialect.case import Case
from llmproxy_core.testing.dialect.declared import DeclaredDialect
from llmproxy_core.testing.dialect.json_changes import changes, text_changes_only, with_unknown
from llmproxy_core.testing.dialect.sameness import differences, of_reply

NOT_REPLIES = (b"", b"null", b"[]", b'"text"', b"{", b"<html>", b"\xff\xfe", b"{}")
EDIT = " (edited 🚲)"


def answers_what_it_declares(declared: DeclaredDialect) -> None:
    """An answer that says declared words is written and read again, and says the same."""
    for api in declared.chat_apis(stream=False):
        for word, reply in answers.one_by_one(declared):
            _survives(Case(declared, api, f"a reply that says {word!r}"), reply)

        def law(random: Random, api: Api = api) -> None:
            _survives(Case(declared, api, "a reply of several words"), answers.some(declared, random))

        for_many(law, declared.examples)


def _survives(case: Case, reply: ChatReply) -> None:
    body = case.write_reply(reply)
    back = case.read_reply(body)
    if found := differences(of_reply(back), of_reply(reply)):
        case.fail(
            "written and read again it says something else; write and read it, or do not declare the word",
            [*found, f"written as {body[:800]!r}"],
        )


def keeps_untouched_replies(declared: DeclaredDialect) -> None:
    """An answer that nobody changed is written byte for byte as it came, whatever it has in it."""
    for api in declared.chat_apis(stream=False):
        for case, body in bodies.replies(declared, api):
            _keeps(case, body)
            _keeps(case.but("with unknown members"), with_unknown(body))


def _keeps(case: Case, body: bytes) -> None:
    if (out := case.write_reply(case.read_reply(body))) != body:
        case.fail(
            "untouched it is written in other bytes; splice into the text of its `ChatOrigin`", [body[:500], out[:500]]
        )


def rewrites_the_text_of_replies_alone(declared: DeclaredDialect) -> None:
    """When a text of an answer is changed its string changes, and nothing else."""
    for api in declared.chat_apis(stream=False):
        for case, body in bodies.replies(declared, api):
            text = with_unknown(body)
            reply = case.read_reply(text)
            for number, choice in enumerate(reply.choices):
                for place, part in enumerate(choice.content):
                    # Probabilities, and what is cited, spell the text: they may go with it.
                    if isinstance(part, TextPart) and part.text.strip() and not (choice.logprobs or part.citations):
                        edited = attrs.evolve(part, text=part.text + EDIT)
                        content = (*choice.content[:place], edited, *choice.content[place + 1 :])
                        new = attrs.evolve(choice, content=content)
                        made = (*reply.choices[:number], new, *reply.choices[number + 1 :])
                        _rewrite(case, text, attrs.evolve(reply, choices=made), part.text)


def _rewrite(case: Case, body: bytes, reply: ChatReply, text: str) -> None:
    out = case.write_reply(reply)
    if (found := text_changes_only(body, out, lambda was: text in was)) or not changes(body, out):
        case.fail(
            "a text was rewritten, and more than it changed, or nothing did; splice what changed into the bytes that "
            "were read",
            found or [f"nothing, in {out[:500]!r}"],
        )
    said = [choice.text for choice in case.read_reply(out).choices]
    if said != [choice.text for choice in reply.choices]:
        case.fail(f"a text was rewritten, and {said!r} is what the client reads: {out[:500]!r}")


def scans_replies(declared: DeclaredDialect) -> None:
    """The cheap scan of an answer tells the same as reading it; neither takes an error or garbage for an answer."""
    for api in declared.chat_apis(stream=False):
        for case, body in bodies.replies(declared, api):
            reply = case.read_reply(body)
            head = case.gives(declared.dialect.scan_reply, api, body)
            words = tuple(it.finish.word for it in reply.choices if it.finish is not None)
            told = {"usage": head.usage, "model": head.model or "", "id": head.id or "", "finish": head.finish}
            said = {"usage": reply.usage, "model": reply.model, "id": reply.id, "finish": words}
            if found := differences(told, said):
                case.fail("scan_reply tells something else than read_reply", found)
        _refuses(declared, api)


def _refuses(declared: DeclaredDialect, api: Api) -> None:
    dialect = declared.dialect
    envelope = dialect.write_error(RateLimited("Too many of them"), "request-1")
    for name, read in (("scan_reply", dialect.scan_reply), ("read_reply", dialect.read_reply)):
        for body in NOT_REPLIES:
            if name == "read_reply" or body != b"{}":  # a scan may look at less
                _raises(Case(declared, api, f"{name} of {body!r}"), read, body, UpstreamGarbage)
        _raises(Case(declared, api, f"{name} of an error with status 200"), read, envelope, UpstreamError)


def _raises(case: Case, read: Callable[[Api, bytes], object], body: bytes, kind: type[UpstreamError]) -> None:
    try:
        read(case.api, body)
    except kind:
        return
    except Exception as error:  # noqa: BLE001 - it is the finding
        case.fail(f"it raises {error!r} instead of {kind.__name__}")
    case.fail(f"it is taken for an answer; raise {kind.__name__}")
