"""The conformance tests let good processors pass, and find the fault of each bad one by the check meant for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import attrs
import pytest

from llmproxy_core import (
    Exchange,
    Handler,
    ProcessorType,
    RateLimited,
    Response,
    Services,
    Tasks,
    UpstreamError,
    Window,
)
from llmproxy_core.testing import (
    CHECKS,
    Answer,
    Aspect,
    Check,
    Declared,
    NotConforming,
    Pipeline,
    ProcessorConformance,
    ProcessorGateway,
    Said,
    ScriptedLLM,
    ask,
    check_processor,
    run,
    scripted_services,
)
from llmproxy_core.testing.said import USED
from llmproxy_openai import OpenAIDialect
from tests.llmproxy_core import good_processors as good
from tests.llmproxy_core.bad_processors import BAD
from tests.llmproxy_core.conversation import CHAT, question, said, whole

DIALECT = OpenAIDialect()
BY_NAME = {check.__name__: check for check in CHECKS}
SHORT = Said(text="Ü 東🚲")


class TestPasses(ProcessorConformance):
    processor_type = good.of(good.passes, operations=good.EVERYTHING)
    dialect = DIALECT


class TestWatches(ProcessorConformance):
    processor_type = good.of(good.watches)
    dialect = DIALECT
    answers = (SHORT,)
    reads_answer = True


class TestRedacts(ProcessorConformance):
    processor_type = good.REDACT
    config: ClassVar[Mapping[str, object]] = {"config_value": "東京", "additional_config": {"mark": "🗼"}}
    dialect = DIALECT
    changes_answer = ("text",)

    def test_it_redacts(self) -> None:
        got = run(self.declared(), "Wo?", says="In 東京.", stream=True)

        assert got.text == "In 🗼."


def declared(processor_type: ProcessorType[Any], **more: Any) -> Declared:
    """One short answer will do: the classes above have heard the long ones."""
    return Declared(processor_type=processor_type, dialect=DIALECT, answers=[SHORT], **more)


GOOD = {
    "answers itself": declared(good.of(good.answers_itself), answers_itself=True),
    "asks another model": declared(good.of(good.other_model), changes_request=True),
    "reads it whole first": declared(good.of(good.whole_first), buffers=True),
    "replaces": declared(good.of(good.replaces), changes_answer={Aspect.SPELLING}),
    "tries again": declared(good.of(good.tries_again), handles_errors=True),
    "asks the route's LLM first": declared(good.ASKS_FIRST, changes_request=True),
    "asks an LLM by name first": declared(
        good.ASKS_FIRST, config={"llm": "helper"}, llms=["helper"], changes_request=True
    ),
    "counts in a store": declared(
        good.LIMIT, config={"calls": 1000, "store": "here"}, tables={"store": {"here": {"type": "memory"}}}
    ),
    "is skippable": declared(good.of(good.watches, skippable=True), reads_answer=True),
}


@pytest.mark.repeats  # the classes above and the faults below go through each check, and are measured
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", GOOD)
def test_a_good_processor_passes(name: str, check: Check) -> None:
    check(GOOD[name])


SAME = {"changes_answer": {"spelling"}}
TEXTS = {"changes_answer": {Aspect.TEXT, Aspect.REASONING, Aspect.TOOLS}}
WHOLE = {"buffers": True}

# The fault, the check that is to find it, what else is declared, and a piece of the advice.
FAULTS: list[tuple[str, str, dict[str, Any], str]] = [
    ("blocks the loop", "does_not_block_the_loop", {}, "asyncio.to_thread"),
    ("blocks the loop once the call is over", "does_not_block_the_loop", {}, "asyncio.to_thread"),
    ("drops the usage", "answers_as_declared", SAME, "became None"),
    ("retells the answer", "answers_as_declared", SAME | WHOLE, "ids: ('answer-1', 'scripted-1') became"),
    ("splits UTF-8", "answers_as_declared", TEXTS, "cut in two"),
    ("splits UTF-8", "answers_alike_however_it_is_cut", TEXTS, "hold back what it cannot decide yet"),
    (
        "filters each piece for itself",
        "answers_alike_however_it_is_cut",
        {"changes_answer": {Aspect.TEXT}},
        "hold back",
    ),
    ("iterates the stream", "leaves_the_stream_alone", WHOLE, "reads the stream itself"),
    ("wraps the stream", "leaves_the_stream_alone", {}, "reads the stream itself"),
    ("wraps the stream", "answers_alike_however_it_is_cut", {}, "byte by byte"),
    ("wraps the stream", "leaves_nothing_open", {}, "leaves that one open"),
    ("swallows cancellation", "lets_cancellation_pass", {}, "never `BaseException`"),
    ("drops a response", "leaves_nothing_open", {}, "response.finish(End.ABANDONED)"),
    ("leaks a detached exchange", "leaves_nothing_open", {}, "a detached exchange"),
    ("leaks a detached exchange", "bills_what_was_used", {}, "never billed"),
    ("leaves a task", "leaves_nothing_open", {}, "the task forgotten"),
    ("leaves a task", "lets_cancellation_pass", {}, "the task forgotten"),
    ("keeps the call on itself", "keeps_nothing_between_calls", {}, "at once, is answered otherwise"),
    ("has one filter for all", "keeps_nothing_between_calls", {}, "at once, is answered otherwise"),
    ("remembers calls", "keeps_nothing_between_calls", {"changes_request": True}, "a second time"),
    ("holds all back", "passes_the_answer_on_at_once", {}, "declare buffers = True"),
    ("changes the request", "sends_what_was_asked", {}, "declare changes_request = True"),
    ("reads the request", "reads_what_it_declares", {}, "declare reads_request = True"),
    ("reads the answer", "reads_what_it_declares", {}, "declare reads_answer = True"),
    ("hides errors", "lets_errors_pass", SAME | WHOLE, "declare handles_errors = True"),
    ("asks without paying", "bills_what_was_used", {}, "exchange.child(request)"),
    ("looks into what is opaque", "acts_on_its_operations", {}, "TypeError: an opaque answer"),
    ("asks nobody", "acts_on_its_operations", {}, "declare answers_itself = True"),
    ("cannot stand zero", "refuses_what_is_wrong", {}, "per_minute = 0 makes it raise ZeroDivisionError"),
    ("shows a wrong example", "builds_from_its_examples", {}, "its own example is refused"),
]


@pytest.mark.parametrize(
    ("name", "check", "more", "advice"), FAULTS, ids=[f"{name}: {check}" for name, check, *_ in FAULTS]
)
def test_a_bad_processor_is_found(name: str, check: str, more: dict[str, Any], advice: str) -> None:
    bad = Declared(processor_type=BAD[name], dialect=DIALECT, **more)

    with pytest.raises(NotConforming) as found:
        BY_NAME[check](bad)

    assert advice in str(found.value)


def test_an_aspect_that_there_is_not_is_no_declaration() -> None:
    with pytest.raises(ValueError, match="'texts' is not a valid Aspect"):
        Declared(processor_type=good.REDACT, dialect=DIALECT, changes_answer=["texts"])


def test_the_dialect_is_the_installed_one_unless_another_is_declared() -> None:
    assert Declared(processor_type=good.REDACT).dialect.name == "openai"


def test_every_bad_processor_is_tried() -> None:
    assert {name for name, *_ in FAULTS} == BAD.keys()


def test_model_calls_that_the_type_does_not_declare_are_found() -> None:
    undeclared = declared(good.asks_first(), changes_request=True)

    with pytest.raises(NotConforming, match="extra_cost_bound"):
        BY_NAME["bills_what_was_used"](undeclared)


def test_all_findings_come_at_once() -> None:
    bad = declared(BAD["changes the request"])

    with pytest.raises(NotConforming, match=r"'_changes_the_request' fails 1 checks:\nsends_what_was_asked: "):
        check_processor(bad)


def test_a_type_that_cannot_be_registered_is_a_finding() -> None:
    nameless = attrs.evolve(BAD["blocks the loop"], name="no name")

    with pytest.raises(NotConforming, match="no name for a processor type"):
        BY_NAME["builds_from_its_examples"](declared(nameless))


def test_a_question_that_is_refused_is_a_finding_that_says_what_to_declare() -> None:
    guarded = Declared(processor_type=good.of(good.watches), dialect=DIALECT, answers=[Said(text="top secret")])

    with pytest.raises(NotConforming, match=r"refused.*guardrail_blocked.*declare a question"):
        BY_NAME["acts_on_its_operations"](guarded)


# -- single questions ------------------------------------------------------------------------------------------------


async def test_a_question_is_answered_with_all_that_a_test_wants_to_know() -> None:
    asking = GOOD["asks the route's LLM first"]

    got = await ask(attrs.evolve(asking, helper_says="better"), "good", "fine", stream=True)

    assert (got.text, got.error) == ("fine", None)
    assert [it.messages[-1].text for it in got.sent] == ["better"]
    assert [it.messages[-1].text for it in got.own] == ["good"]
    assert got.bill is not None
    assert got.bill.usage == USED + USED


async def test_an_error_of_the_llm_is_told() -> None:
    error = UpstreamError("Overloaded", status=503)

    got = await ask(declared(good.of(good.passes)), says=error)

    assert got.error is error
    assert got.reply is None


async def test_one_processor_may_be_asked_again() -> None:
    limited = attrs.evolve(GOOD["counts in a store"], config={"calls": 1}, tables={})

    async with ProcessorGateway(limited) as gateway:
        first, second = await gateway.ask("1"), await gateway.ask("2")

    assert first.error is None
    assert isinstance(second.error, RateLimited)


def test_the_processor_may_be_lent_other_services() -> None:
    def other(services: Services) -> Services:
        return attrs.evolve(services, now=lambda: 7.0)

    async def stamps(exchange: Exchange, call_next: Handler, services: Services) -> Response:
        exchange.response_headers.append(("x-now", str(services.now())))
        return await call_next(exchange)

    got = run(declared(good.of(stamps), services=other))

    assert got.header("x-now") == "7.0"


async def test_services_for_a_pipeline_know_the_route_the_llms_and_a_store(tasks: Tasks) -> None:
    helper = ScriptedLLM([Answer(whole=whole("better"))], dialect=DIALECT, api=CHAT, tasks=tasks)
    llm = ScriptedLLM([Answer(whole=whole("fine"))], dialect=DIALECT, api=CHAT, tasks=tasks)
    services = scripted_services(llm, tasks=tasks, llms={"helper": helper})
    processor = good.AsksFirst(good.AskConfig(llm="helper"), services)

    async with Pipeline(DIALECT, llm, processors=[processor], tasks=tasks) as pipeline:
        result = await pipeline.ask(CHAT, question())

    assert said(result.body) == "fine"
    assert llm.requests[0].chat.messages[-1].text == "better"
    assert services.route("/").llm is llm
    assert (await services.store("memory").counter("any").add("key", 2, Window.DAY)).value == 2
