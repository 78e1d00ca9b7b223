"""
For the tests of plugin authors. What every processor must do is in here as tests to be inherited:

    class TestShout(ProcessorConformance):
        processor_type = SHOUT
        changes_answer = {"text"}

and what every dialect must do, with what its protocol can say:

    class TestParley(DialectConformance):
        dialect = ParleyDialect()
        says = {"system", "temperature"}

Single questions to a processor in a real gateway, without a server: `ask`, `run`, `ProcessorGateway`. For the finer
work: an LLM that plays a script, a clock that a test moves, a pipeline of processors that the test makes itself:

    async with Pipeline(dialect, ScriptedLLM([Answer([b"data: ..."])]), processors=[MyProcessor()]) as pipeline:
        result = await pipeline.ask(api, body)
"""

from llmproxy_core.testing.asking import Got, ProcessorGateway, ask, run
from llmproxy_core.testing.client import Result
from llmproxy_core.testing.clock import FakeClock
from llmproxy_core.testing.conformance import CHECKS, Check, ProcessorConformance, check_processor
from llmproxy_core.testing.declared import Declared, Sample
from llmproxy_core.testing.dialect.conformance import DIALECT_CHECKS, DialectCheck, DialectConformance, check_dialect
from llmproxy_core.testing.dialect.declared import DeclaredDialect, Recorded, RecordedError, StreamGrammar, grammar_of
from llmproxy_core.testing.dialect.says import Says
from llmproxy_core.testing.heard import Aspect
from llmproxy_core.testing.pipeline import Pipeline
from llmproxy_core.testing.said import Said
from llmproxy_core.testing.script import Answer, ScriptedBody, ScriptedLLM
from llmproxy_core.testing.services import scripted_services
from llmproxy_core.testing.verdict import NotConforming

__all__ = [
    # what every processor must do
    "ProcessorConformance",
    "Declared",
    "Aspect",
    "Said",
    "Sample",
    "check_processor",
    "CHECKS",
    "Check",
    "NotConforming",
    # what every dialect must do
    "DialectConformance",
    "DeclaredDialect",
    "Says",
    "Recorded",
    "RecordedError",
    "StreamGrammar",
    "grammar_of",
    "check_dialect",
    "DIALECT_CHECKS",
    "DialectCheck",
    # single questions
    "ask",
    "run",
    "ProcessorGateway",
    "Got",
    # by hand
    "Pipeline",
    "Result",
    "Answer",
    "ScriptedLLM",
    "ScriptedBody",
    "scripted_services",
    "FakeClock",
]
