"""Other protocols: what their clients ask and their providers answer is said, or refused by name; never lost."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from llmproxy_core.carried import unseal
from llmproxy_core.chat import (
    ChatEvent,
    ChatRequest,
    End,
    Finish,
    Finished,
    FinishReason,
    ReasoningDelta,
    ReasoningPart,
    Start,
    TextDelta,
    UsageReported,
)
from llmproxy_core.dialect import Api
from llmproxy_core.errors import RequestRejected, Unsupported, UpstreamError
from llmproxy_core.testing.dialect import foreign
from llmproxy_core.testing.dialect.case import Case
from llmproxy_core.testing.dialect.conversations import SIGNATURE
from llmproxy_core.testing.dialect.declared import DeclaredDialect
from llmproxy_core.testing.dialect.event_orders import STRANGER
from llmproxy_core.testing.dialect.json_changes import data_of, strings
from llmproxy_core.testing.dialect.sameness import differences, of_request
from llmproxy_core.testing.dialect.says import SILENT, Says
from llmproxy_core.translation import Translation
from llmproxy_core.usage import Usage

LLM = "the-llm"
MOST_OUTPUT = 4_096


def says_or_refuses_what_others_ask(declared: DeclaredDialect) -> None:
    """
    A request of another protocol is written so that it says the same, or refused by the name of the field.

    What is left out or changed instead is recorded. A translation that drops is always written.
    """
    for api in declared.chat_apis():
        for word, chat in foreign.word_by_word(declared):
            _says_or_refuses(Case(declared, api, f"another protocol's request that says '{word}'"), word, chat)
        case = Case(declared, api, "another protocol's request with everything in it")
        _dropped(case, foreign.everything(declared))
        _asked(case, foreign.everything(declared), Translation(llm=LLM, max_output_tokens=MOST_OUTPUT))


def _says_or_refuses(case: Case, word: Says, chat: ChatRequest) -> None:
    chat = _as_sent(case.api, chat)
    translation = Translation(llm=LLM, max_output_tokens=MOST_OUTPUT)
    body = _asked(case, chat, translation)
    if body is None:
        if word in case.declared.says:
            case.fail("it is refused, though it can be said (it is declared)")
        _dropped(case, chat)
        return
    if translation.changes:
        return
    expected = attrs.evolve(chat, stream=False, model=None)
    back = attrs.evolve(case.read_chat(body), stream=False, model=None)
    found = differences(of_request(back), of_request(expected), but={"max_output_tokens", "unknown members"})
    if found and word not in SILENT:
        case.fail(
            "something of it is lost without a word; refuse it (`wire.refuse`), or record what became of it "
            "(`wire.convert`)",
            found,
        )


def _as_sent(api: Api, chat: ChatRequest) -> ChatRequest:
    return attrs.evolve(chat, stream=api.streams is not False, wants_usage=api.streams is not False)


def _asked(case: Case, chat: ChatRequest, translation: Translation) -> bytes | None:
    """The request that is sent; None when it was refused as it must be."""
    try:
        body = case.dialect.write_chat(case.api, _as_sent(case.api, chat), translation)
    except Unsupported as error:
        if not error.param:
            case.fail(f"the refusal names no field: {error.message}; `llmproxy_core.unsupported(place, what)` does")
        return None
    except Exception as error:  # noqa: BLE001 - it is the finding
        case.fail(f"write_chat raises {error!r}; only Unsupported, for what cannot be said")
    case.read_chat(body)
    return body


def _dropped(case: Case, chat: ChatRequest) -> None:
    """What was refused is left out when the operator wants that, and the client is told."""
    translation = Translation(llm=LLM, drops=True, max_output_tokens=MOST_OUTPUT)
    case = case.but("where the operator lets things be dropped")
    try:
        body = case.dialect.write_chat(case.api, _as_sent(case.api, chat), translation)
    except Exception as error:  # noqa: BLE001 - it is the finding
        case.fail(
            f"write_chat raises {error!r}; leave out what cannot be said (`wire.refuse` returns then; "
            "`wire.attempt` for an element of a list)"
        )
    case.read_chat(body)
    if not translation.changes:
        case.fail("something was left out, and nobody is told (`translation.changes`)")


def survives_odd_histories(declared: DeclaredDialect) -> None:
    """Conversations that other protocols allow are written, or refused as the caller's to change; never a bug."""
    for api in declared.chat_apis():
        for how, chat in foreign.odd_histories(declared.model):
            for drops in (False, True):
                case = Case(declared, api, f"{how}, of another protocol")
                translation = Translation(llm=LLM, drops=drops, max_output_tokens=MOST_OUTPUT)
                try:
                    body = declared.dialect.write_chat(api, _as_sent(api, chat), translation)
                except RequestRejected:
                    continue
                except Exception as error:  # noqa: BLE001 - it is the finding
                    case.fail(f"write_chat raises {error!r}; write it, or raise Unsupported")
                case.read_chat(body)


def sends_no_signature_of_another(declared: DeclaredDialect) -> None:
    """Thinking that another provider signed does not go to this one: it would refuse the request."""
    for api in declared.chat_apis():
        for word, chat in foreign.word_by_word(declared):
            if word in {Says.SIGNATURES, Says.REDACTED, Says.ENCRYPTED}:
                case = Case(declared, api, f"another protocol's request that says '{word}'")
                body = case.write_chat(_as_sent(api, chat), Translation(llm=LLM, max_output_tokens=MOST_OUTPUT))
                if SIGNATURE in strings(body) or any(unseal(text) for text in strings(body)):
                    case.fail("a signature of another provider is sent; leave its thinking out", [body[:800]])


# -- answers -------------------------------------------------------------------------------------------------------


def answers_as_others_did(declared: DeclaredDialect) -> None:
    """Any answer of another protocol is written, and read again its text is there."""
    for api in declared.chat_apis(stream=False):
        for how, reply in foreign.replies():
            case = Case(declared, api, f"another protocol's answer ({how})")
            body = case.write_reply(reply)
            if Says.FINISH_ERROR in how and _is_error(declared, api, body):
                continue  # an answer that failed may be read as an error
            back = case.read_reply(body)
            if not back.id or (reply.model and back.model != reply.model):
                case.fail(f"its id or model is lost: {body[:500]!r}")
            if reply.choices and reply.text not in back.text:
                case.fail(f"its text is lost: {body[:500]!r}")
            usage, told = reply.usage, back.usage
            if usage is not None and (told is None or told.total_tokens != usage.total_tokens):
                case.fail(f"its usage became {told}: {body[:500]!r}")


def _is_error(declared: DeclaredDialect, api: Api, body: bytes) -> bool:
    try:
        declared.dialect.read_reply(api, body)
    except UpstreamError:
        return True
    return False


def carries_signatures(declared: DeclaredDialect) -> None:
    """
    What another provider needs back is handed to the client sealed, whole and streamed, and comes back unsealed.

    For dialects that declare `carried_signatures`; the way back needs `asks_again`.
    """
    if Says.CARRIED not in declared.says:
        return
    for api in declared.chat_apis(stream=False):
        [reply] = [reply for how, reply in foreign.replies() if Says.REDACTED in how]
        case = Case(declared, api, "another provider's signed thinking")
        body = case.write_reply(reply)
        _is_sealed(case, strings(body), {"signature", "redacted", "encrypted"})
        if declared.asks_again is not None:
            _comes_back(case, declared.asks_again(body))
    for api in declared.chat_apis(stream=True):
        case = Case(declared, api, "another provider's signed thinking, streamed")
        for name in ("signature", "redacted", "encrypted"):
            sealed = ReasoningDelta(0, "", provider=STRANGER)
            setattr(sealed, name, SIGNATURE)
            events: list[ChatEvent] = [
                _START,
                ReasoningDelta(0, "Hm.", provider=STRANGER),
                sealed,
                TextDelta(0, "So."),
                *_END,
            ]
            frames = case.read_stream([case.write_stream(events)]).frames
            texts = (text for frame in frames for text in _strings_of(frame.raw))
            _is_sealed(case, texts, {name})


_START = Start("strange-1", "strange-model", 1_700_000_000)
_END = (Finished(0, Finish(FinishReason.STOP)), UsageReported(Usage(11, 7)), End())


def _strings_of(raw: bytes) -> Iterator[str]:
    data = data_of(raw)
    return strings(data) if data else iter(())


def _is_sealed(case: Case, texts: Iterator[str], names: set[str]) -> None:
    found = [carried for text in texts if (carried := unseal(text)) is not None and carried.provider == STRANGER]
    missing = {name for name in names if all(getattr(carried, name) != SIGNATURE for carried in found)}
    if missing:
        case.fail(
            f"the client does not get the {', '.join(sorted(missing))}, sealed (`llmproxy_core.seal`); without it the "
            "provider refuses the next turn"
        )


def _comes_back(case: Case, body: bytes) -> None:
    chat = case.but("in the client's next request").read_chat(body)
    parts = [part for message in chat.messages for part in message.content if isinstance(part, ReasoningPart)]
    for name in ("signature", "redacted", "encrypted"):
        if not any(part.provider == STRANGER and getattr(part, name) == SIGNATURE for part in parts):
            case.fail(f"the {name} does not come back in the client's next request: unseal it", [body[:1500], *parts])
