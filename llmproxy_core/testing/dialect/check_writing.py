"""Streams that are written from events: of the dialect's own answers, and of any other protocol's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from random import Random

from llmproxy_core.chat import (
    ChatReply,
    Choice,
    FinishReason,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCall,
)
from llmproxy_core.dialect import Api
from llmproxy_core.reply_events import Assembler, events_of
from llmproxy_core.testing.chance import for_many, seeded
from llmproxy_core.testing.dialect import answers, bodies
from llmproxy_core.testing.dialect.case import Case
from llmproxy_core.testing.dialect.declared import DeclaredDialect
from llmproxy_core.testing.dialect.event_orders import EventOrder, orders
from llmproxy_core.testing.dialect.sameness import Facts, arguments, differences, of_reply
from llmproxy_core.testing.dialect.says import Says

_MIXED = 12
"""Random orders of events for each made example."""


def says_the_same_plain_and_streamed(declared: DeclaredDialect) -> None:
    """One answer, written whole and written as a stream, is read as the same; so is a recorded stream, as a whole."""
    for api in declared.chat_apis(stream=True):
        plain = next(iter(declared.chat_apis(stream=False)), api)
        for sample in declared.recorded(api):
            if sample.stream is not None:
                _same_as_plain(Case(declared, api, f"the stream of {sample}", recorded=True), plain, sample.stream)
        for word, reply in answers.one_by_one(declared):
            _streams(Case(declared, api, f"a stream that says {word!r}"), reply)

        def law(random: Random, api: Api = api) -> None:
            _streams(Case(declared, api, "a stream of several words"), answers.some(declared, random))

        for_many(law, declared.examples)


def _streams(case: Case, reply: ChatReply) -> None:
    for events in (events_of(reply), list(bodies.in_pieces(events_of(reply)))):
        for together in (False, True):
            stream = case.write_stream(events, together=together)
            read = case.read_stream([stream])
            if read.rules.broken:
                case.fail("what the writer wrote is read out of order", [*read.rules.broken, stream[:800]])
            if found := differences(of_reply(read.reply), of_reply(reply)):
                case.fail("streamed and read again the answer says something else", [*found, stream[:1500]])
            _is_accepted(case, stream)


def _same_as_plain(case: Case, plain: Api, stream: bytes) -> None:
    """What a recorded stream says, written whole, is the same answer."""
    read = case.read_stream([stream])
    if read.failed is not None:
        return
    told = read.reply
    there = Case(case.declared, plain, f"{case.where}, written whole")
    body = there.write_reply(told)
    if found := _heard_otherwise(there.read_reply(body), told, case.declared):
        there.fail("it is read as another answer", found)


def takes_events_in_any_order(declared: DeclaredDialect) -> None:
    """
    Events of any other protocol, in any order that its reader may give, become a stream that this one's clients take.

    Parallel calls may interleave, usage come before or after the finish, choices in turn, thinking be sealed by
    others; what has no place in this protocol is left out, the rest arrives.
    """
    for api in declared.chat_apis(stream=True):
        for order in orders(seeded(0), 0):
            _takes(Case(declared, api, f"events of another protocol ({order.how})"), order)

        def law(random: Random, api: Api = api) -> None:
            for order in orders(random, _MIXED)[-_MIXED:]:
                _takes(Case(declared, api, f"events of another protocol: {_told(order)}"), order)

        for_many(law, max(1, declared.examples // 4))


def _told(order: EventOrder) -> str:
    """The events in short, for messages: what is None is left out."""
    return re.sub(r", \w+=(None|False)|(?<=\() *\w+=(None|False)", "", str(list(order.events)))


def _takes(case: Case, order: EventOrder) -> None:
    for together in (False, True):
        stream = case.write_stream(order.events, together=together)
        read = case.read_stream([stream])
        if not order.has_start or not order.is_finished:
            continue  # it must be written and read; what it says is nobody's promise
        if read.rules.broken:
            case.fail("what was written is read out of order", [*read.rules.broken, stream[:1500]])
        if not read.is_complete:
            case.fail(f"what was written has no end: {stream[-300:]!r}")
        assembler = Assembler()
        assembler.feed(order.events)
        told, expected = read.reply, assembler.reply()
        if found := _heard_otherwise(told, expected, case.declared):
            case.fail("what was written says something else", [*found, stream[:2000]])
        if order.is_right:
            _is_accepted(case, stream)


def _is_accepted(case: Case, stream: bytes) -> None:
    if found := case.declared.grammar(case.api, stream, failed=False):
        case.fail("what was written breaks the rules of the protocol's streams", [*found, stream[:2000]])


# -- what must arrive ----------------------------------------------------------------------------------------------


def _heard_otherwise(got: ChatReply, expected: ChatReply, declared: DeclaredDialect) -> list[str]:
    """What a client hears otherwise; where the protocol has no word for why an answer ended, any will do."""
    facts = _heard(expected, declared)
    unsaid = [name for name, it in facts.items() if name.endswith("finish") and it is None]
    return differences(_heard(got, declared), facts, but=unsaid)


def _heard(reply: ChatReply, declared: DeclaredDialect) -> Facts:
    """What of *reply* every protocol can say, and what is declared of the rest."""
    says = declared.says
    facts: dict[str, object] = {}
    for choice in reply.choices:
        if choice.index == 0 or Says.N in says:
            facts |= {f"choices[{choice.index}]: {name}": it for name, it in _said(choice, says).items()}
    usage = reply.usage
    counts = (0, 0) if usage is None else (usage.input_tokens, usage.output_tokens)
    return facts | {"usage": counts}


def _said(choice: Choice, says: frozenset[Says]) -> dict[str, object]:
    text, refusal = _joined(choice, TextPart), _joined(choice, RefusalPart)
    calls = [part for part in choice.content if isinstance(part, ToolCall)]
    facts: dict[str, object] = {"finish": _finish(choice, says, called=bool(calls))}
    if Says.TOOLS in says:
        facts["calls"] = [(call.name, _repaired(call.arguments)) for call in calls]
    if Says.REFUSALS in says:
        facts |= {"text": text, "refusal": refusal}
    else:
        said = [part.text for part in choice.content if isinstance(part, TextPart | RefusalPart)]
        facts["text"] = "".join(said)  # a refusal is never lost
    if Says.REASONING in says:
        facts["thinking"] = _joined(choice, ReasoningPart)
    return facts


def _joined(choice: Choice, kind: type[TextPart | RefusalPart | ReasoningPart]) -> str:
    return "".join(part.text for part in choice.content if isinstance(part, kind))


def _repaired(text: str) -> object:
    """Arguments; those that are no JSON are each protocol's own affair."""
    value = arguments(text)
    return "no object" if not isinstance(value, dict) or _wraps(value) else value


def _wraps(value: Iterable[str]) -> bool:
    """Whether an object was made around what was none: its one member has no name that a call gave it."""
    names = list(value)
    return len(names) == 1 and names[0] not in {"city", "n", "days"}


def _finish(choice: Choice, says: frozenset[Says], *, called: bool) -> str | None:
    """The reason, as far as the protocol tells reasons apart."""
    if choice.finish is None or any(isinstance(part, RefusalPart) for part in choice.content):
        return None  # some protocols end a refusal as any text, some with a word of its own
    reason = choice.finish.reason
    known = {
        FinishReason.LENGTH: Says.FINISH_LENGTH,
        FinishReason.CONTENT_FILTER: Says.FINISH_FILTER,
        FinishReason.REFUSAL: Says.FINISH_REFUSAL,
        FinishReason.ERROR: Says.FINISH_ERROR,
    }
    if reason in known and known[reason] not in says:
        return None
    if called and reason in {FinishReason.STOP, FinishReason.TOOL_CALLS} and Says.TOOLS in says:
        return FinishReason.TOOL_CALLS.value
    return FinishReason.STOP.value if reason is FinishReason.TOOL_CALLS else reason.value
