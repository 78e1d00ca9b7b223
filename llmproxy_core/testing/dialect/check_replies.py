"""Whole answers: what they say survives, and so do their bytes."""

from __future__ import annotations

from random import Random

import attrs

from llmproxy_core.chat import ChatReply, TextPart
from llmproxy_core.dialect import Api
from llmproxy_core.errors import RateLimited, UpstreamError, UpstreamGarbage
from llmproxy_core.testing.dialect import answers, bodies
from llmproxy_core.testing.dialect.chance import for_many
from llmproxy_core.testing.dialect.declared import DeclaredDialect
from llmproxy_core.testing.dialect.json_changes import changes, text_changes_only, with_unknown
from llmproxy_core.testing.dialect.reading import read_reply, succeeds
from llmproxy_core.testing.dialect.sameness import differences, of_reply
from llmproxy_core.testing.verdict import NotConforming

NOT_REPLIES = (b"", b"null", b"[]", b'"text"', b"{", b"<html>", b"\xff\xfe", b"{}")
EDIT = " (edited 🚲)"


def answers_what_it_declares(declared: DeclaredDialect) -> None:
    """An answer that says declared words is written and read again, and says the same."""
    for api in declared.chat_apis(stream=False):
        for word, reply in answers.one_by_one(declared):
            _survives(declared, api, reply, f"{api.name}, a reply that says {word!r}")

        def law(random: Random, api: Api = api) -> None:
            _survives(declared, api, answers.some(declared, random), f"{api.name}, a reply of several words")

        for_many(law, declared.examples)


def _survives(declared: DeclaredDialect, api: Api, reply: ChatReply, where: str) -> None:
    body = succeeds(where, lambda: declared.dialect.write_reply(api, reply))
    back = read_reply(declared.dialect, api, body, where)
    if found := differences(of_reply(back), of_reply(reply)):
        raise NotConforming(
            f"{where}: read again it says something else; write and read it, or do not declare the word:\n  "
            + "\n  ".join(found)
            + f"\n  written as {body[:800]!r}"
        )


def keeps_untouched_replies(declared: DeclaredDialect) -> None:
    """An answer that nobody changed is written byte for byte as it came, whatever it has in it."""
    for api in declared.chat_apis(stream=False):
        for where, body in bodies.replies(declared, api):
            for how, text in ((where, body), (f"{where}, with unknown members", with_unknown(body))):
                reply = read_reply(declared.dialect, api, text, how)
                out = succeeds(how, lambda reply=reply: declared.dialect.write_reply(api, reply))  # type: ignore[misc]
                if out != text:
                    raise NotConforming(
                        f"{how}: untouched it is written in other bytes; splice into the text of its `ChatOrigin`:\n  "
                        f"{text[:500]!r}\n  {out[:500]!r}"
                    )


def rewrites_the_text_of_replies_alone(declared: DeclaredDialect) -> None:
    """When a text of an answer is changed its string changes, and nothing else."""
    for api in declared.chat_apis(stream=False):
        for where, body in bodies.replies(declared, api):
            text = with_unknown(body)
            reply = read_reply(declared.dialect, api, text, where)
            for number, choice in enumerate(reply.choices):
                for place, part in enumerate(choice.content):
                    if isinstance(part, TextPart) and part.text.strip() and choice.logprobs is None:
                        edited = attrs.evolve(part, text=part.text + EDIT)
                        content = (*choice.content[:place], edited, *choice.content[place + 1 :])
                        new = attrs.evolve(choice, content=content)
                        made = (*reply.choices[:number], new, *reply.choices[number + 1 :])
                        _rewrite(declared, api, text, attrs.evolve(reply, choices=made), part.text, where)


def _rewrite(declared: DeclaredDialect, api: Api, body: bytes, reply: ChatReply, text: str, where: str) -> None:
    out = succeeds(where, lambda: declared.dialect.write_reply(api, reply))
    if (found := text_changes_only(body, out, lambda was: text in was)) or not changes(body, out):
        raise NotConforming(
            f"{where}: a text was rewritten, and more than it changed, or nothing did; splice what changed into the "
            "bytes that were read:\n  " + "\n  ".join(map(str, found))
        )
    said = [choice.text for choice in read_reply(declared.dialect, api, out, where).choices]
    if said != [choice.text for choice in reply.choices]:
        raise NotConforming(f"{where}: a text was rewritten, and {said!r} is what the client reads: {out[:500]!r}")


def scans_replies(declared: DeclaredDialect) -> None:
    """The cheap scan of an answer tells the same as reading it; neither takes an error or garbage for an answer."""
    for api in declared.chat_apis(stream=False):
        for where, body in bodies.replies(declared, api):
            reply = read_reply(declared.dialect, api, body, where)
            head = succeeds(where, lambda body=body: declared.dialect.scan_reply(api, body))  # type: ignore[misc]
            told = {"usage": head.usage, "model": head.model or "", "id": head.id or ""}
            said = {"usage": reply.usage, "model": reply.model, "id": reply.id}
            words = tuple(it.finish.word for it in reply.choices if it.finish is not None)
            found = differences(told, said)
            if head.finish != words:
                found.append(f"finish: {words!r} became {head.finish!r}")
            if found:
                raise NotConforming(
                    f"{where}: scan_reply tells something else than read_reply:\n  " + "\n  ".join(found)
                )
        _refuses(declared, api)


def _refuses(declared: DeclaredDialect, api: Api) -> None:
    dialect = declared.dialect
    envelope = dialect.write_error(RateLimited("Too many of them"), "request-1")
    for name, read in (("scan_reply", dialect.scan_reply), ("read_reply", dialect.read_reply)):
        for body in NOT_REPLIES:
            if name == "scan_reply" and body == b"{}":
                continue  # a scan may look at less
            _raises(f"{api.name}: {name}({body!r})", lambda read=read, body=body: read(api, body), UpstreamGarbage)  # type: ignore[misc]
        _raises(f"{api.name}: {name} of an error with status 200", lambda read=read: read(api, envelope), UpstreamError)  # type: ignore[misc]


def _raises(where: str, doing: object, kind: type[UpstreamError]) -> None:
    assert callable(doing)
    try:
        doing()
    except kind:
        return
    except Exception as error:
        raise NotConforming(f"{where} raises {type(error).__name__} instead of {kind.__name__}: {error}") from error
    raise NotConforming(f"{where} takes it for an answer; raise {kind.__name__}")
