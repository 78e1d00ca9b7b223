"""
The conformance tests of processors: what every processor must do, and what its author declares of it.

As a class, for pytest or any runner that calls methods named `test_…`:

    from llmproxy_core.testing import ProcessorConformance

    class TestShout(ProcessorConformance):
        processor_type = SHOUT
        config = {"volume": 11}
        changes_answer = {"text"}

As a function, and check by check:

    check_processor(Declared(processor_type=SHOUT, config={"volume": 11}, changes_answer={"text"}))

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_shout_conforms(check: Check) -> None:
        check(DECLARED)

All of it is synchronous: each check runs event loops of its own, so no plugin of pytest is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

from llmproxy_core.dialect import Dialect, Operation
from llmproxy_core.hookspecs import ProcessorType
from llmproxy_core.services import Services
from llmproxy_core.testing.check_answer import (
    answers_alike_however_it_is_cut,
    answers_as_declared,
    bills_what_was_used,
)
from llmproxy_core.testing.check_config import builds_from_its_examples, refuses_what_is_wrong
from llmproxy_core.testing.check_ends import leaves_nothing_open, lets_cancellation_pass
from llmproxy_core.testing.check_errors import lets_errors_pass
from llmproxy_core.testing.check_loop import does_not_block_the_loop, keeps_nothing_between_calls
from llmproxy_core.testing.check_operations import acts_on_its_operations, sends_what_was_asked
from llmproxy_core.testing.check_reading import reads_what_it_declares
from llmproxy_core.testing.check_stream import leaves_the_stream_alone, passes_the_answer_on_at_once
from llmproxy_core.testing.declared import Declared, Sample, installed_dialect
from llmproxy_core.testing.said import BUSY, THOUGHTFUL, Said
from llmproxy_core.testing.verdict import NotConforming

Check = Callable[[Declared], None]
"""Raises NotConforming, which says what the author can do."""

CHECKS: Sequence[Check] = (
    builds_from_its_examples,
    refuses_what_is_wrong,
    does_not_block_the_loop,  # early: one that blocks makes all that follows take long
    acts_on_its_operations,
    reads_what_it_declares,
    sends_what_was_asked,
    answers_as_declared,
    answers_alike_however_it_is_cut,
    bills_what_was_used,
    leaves_the_stream_alone,
    passes_the_answer_on_at_once,
    lets_errors_pass,
    lets_cancellation_pass,
    leaves_nothing_open,
    keeps_nothing_between_calls,
)


def check_processor(declared: Declared) -> None:
    """Run all checks; NotConforming with everything that was found."""
    found: list[str] = []
    for check in CHECKS:
        try:
            check(declared)
        except NotConforming as finding:
            found.append(f"{check.__name__}: {finding}")
    if found:
        name = declared.processor_type.name
        raise NotConforming(f"the processor type {name!r} fails {len(found)} checks:\n" + "\n".join(found))


class ProcessorConformance:
    """
    Inherit it, say what your processor declares, and each check is a test.

    The attributes are those of `Declared`, which says what each means. `processor_type` must be given.
    """

    processor_type: ClassVar[ProcessorType[Any]]
    config: ClassVar[Mapping[str, object]] = {}
    dialect: ClassVar[Dialect | None] = None
    """None: the installed one (`openai` if there are several)."""
    reads_request: ClassVar[bool] = False
    reads_answer: ClassVar[bool] = False
    changes_request: ClassVar[bool] = False
    changes_answer: ClassVar[Collection[str]] = ()
    """Each an `Aspect`, or its word."""
    buffers: ClassVar[bool] = False
    answers_itself: ClassVar[bool] = False
    handles_errors: ClassVar[bool] = False
    question: ClassVar[str] = "Wie komme ich nach 東京 🚲?"
    answers: ClassVar[Sequence[Said]] = (THOUGHTFUL, BUSY)
    helper_says: ClassVar[str] = "Der Weg nach 東京, mit dem 🚲"
    llms: ClassVar[Sequence[str]] = ()
    tables: ClassVar[Mapping[str, Mapping[str, Mapping[str, object]]]] = {}
    plugins: ClassVar[Sequence[object]] = ()
    env: ClassVar[Mapping[str, str]] = {}
    samples: ClassVar[Mapping[Operation, Sample]] = {}
    blocking_s: ClassVar[float] = 0.05

    def services(self, services: Services) -> Services:
        """What the processor is lent, exchanged where a test needs it so."""
        return services

    def declared(self) -> Declared:
        return Declared(
            processor_type=self.processor_type,
            config=self.config,
            dialect=self.dialect or installed_dialect(),
            reads_request=self.reads_request,
            reads_answer=self.reads_answer,
            changes_request=self.changes_request,
            changes_answer=self.changes_answer,
            buffers=self.buffers,
            answers_itself=self.answers_itself,
            handles_errors=self.handles_errors,
            question=self.question,
            answers=self.answers,
            helper_says=self.helper_says,
            llms=self.llms,
            tables=self.tables,
            plugins=self.plugins,
            env=self.env,
            samples=self.samples,
            services=self.services,
            blocking_s=self.blocking_s,
        )

    def test_it_builds_from_its_examples(self) -> None:
        builds_from_its_examples(self.declared())

    def test_it_refuses_a_wrong_configuration(self) -> None:
        refuses_what_is_wrong(self.declared())

    def test_it_does_not_block_the_event_loop(self) -> None:
        does_not_block_the_loop(self.declared())

    def test_it_acts_on_its_operations(self) -> None:
        acts_on_its_operations(self.declared())

    def test_it_reads_what_it_declares(self) -> None:
        reads_what_it_declares(self.declared())

    def test_it_sends_what_was_asked(self) -> None:
        sends_what_was_asked(self.declared())

    def test_it_changes_of_the_answer_what_it_declares(self) -> None:
        answers_as_declared(self.declared())

    def test_its_answer_does_not_depend_on_how_the_stream_is_cut(self) -> None:
        answers_alike_however_it_is_cut(self.declared())

    def test_all_that_was_used_is_billed(self) -> None:
        bills_what_was_used(self.declared())

    def test_it_leaves_the_stream_alone(self) -> None:
        leaves_the_stream_alone(self.declared())

    def test_it_passes_the_answer_on_at_once(self) -> None:
        passes_the_answer_on_at_once(self.declared())

    def test_errors_pass(self) -> None:
        lets_errors_pass(self.declared())

    def test_cancellation_passes(self) -> None:
        lets_cancellation_pass(self.declared())

    def test_nothing_is_left_open(self) -> None:
        leaves_nothing_open(self.declared())

    def test_it_keeps_nothing_between_calls(self) -> None:
        keeps_nothing_between_calls(self.declared())
