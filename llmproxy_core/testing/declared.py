"""What the author of a processor says of it, for the tests to hold it to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import attrs

from llmproxy_core.dialect import Dialect, Operation
from llmproxy_core.hookspecs import ProcessorType
from llmproxy_core.plugins import Registry
from llmproxy_core.services import Services
from llmproxy_core.testing.heard import Aspect
from llmproxy_core.testing.said import BUSY, THOUGHTFUL, Said


@attrs.frozen
class Sample:
    """A body that asks for an operation, and a body that answers it."""

    question: bytes
    answer: bytes


SAMPLES: Mapping[Operation, Sample] = {
    Operation.EMBEDDINGS: Sample(
        '{"model":"scripted-1","input":"Grüße"}'.encode(),
        b'{"object":"list","model":"scripted-1","data":[{"object":"embedding","index":0,"embedding":[0.5]}],'
        b'"usage":{"prompt_tokens":3,"total_tokens":3}}',
    ),
    Operation.COUNT_TOKENS: Sample(
        b'{"model":"scripted-1","messages":[{"role":"user","content":"hi"}]}', b'{"input_tokens":3}'
    ),
    Operation.OPAQUE: Sample(b"anything \xff at all", b"whatever \xfe it is"),
}
"""Of what the neutral conversation cannot say, as most protocols have it."""


def installed_dialect() -> Dialect:
    """The dialect `openai` where it is installed, else the first by name. LookupError when there is none."""
    found = Registry.load().dialects
    if not found:
        raise LookupError("no dialect is installed: say which to test with, as dialect = OpenAIDialect()")
    return found.get("openai") or found[min(found)]


def as_they_are(services: Services) -> Services:
    return services


def _aspects(words: Collection[str]) -> frozenset[Aspect]:
    return frozenset(Aspect(word) for word in words)


@attrs.frozen(kw_only=True, eq=False)
class Declared:
    """
    A processor, and what it is declared to do; what it does besides is a fault.

    *config* holds the keys of its table as TOML has them; *tables* are more tables of the file (`{"store": {"fast":
    {"type": "memory"}}}`), *llms* the names of more LLMs, all of which answer *helper_says*; *plugins* are more modules
    with hooks, *env* is the environment that configuration may name.

    *reads_request*: it looks into the request's body (more than the model and whether a stream is asked for);
    *reads_answer*: it watches, keeps or reads the answer. What it changes, or waits for, it reads anyway.
    *changes_request*: what is sent to the LLM is not what the client sent. *changes_answer*: which aspects of the
    answer it changes (`{"text"}`); without any the client gets the very bytes that it would get without the
    processor. *buffers*: the client of a stream waits for the whole answer. *answers_itself*: it may answer without
    asking the LLM. *handles_errors*: what the LLM fails with is not always what the client gets (it retries, say).

    *question* and *answers* are what is asked and answered in chat; give those that set the processor to work, and
    that it lets pass. *samples* are those of other operations. *services* may exchange what the processor is lent.
    *blocking_s* is how long one step may hold up the event loop.
    """

    processor_type: ProcessorType[Any]
    config: Mapping[str, object] = attrs.field(factory=dict)
    dialect: Dialect = attrs.field(factory=installed_dialect)
    reads_request: bool = False
    reads_answer: bool = False
    changes_request: bool = False
    changes_answer: frozenset[Aspect] = attrs.field(default=frozenset(), converter=_aspects)
    buffers: bool = False
    answers_itself: bool = False
    handles_errors: bool = False
    question: str = "Wie komme ich nach 東京 🚲?"
    answers: Sequence[Said] = (THOUGHTFUL, BUSY)
    helper_says: str = "Der Weg nach 東京, mit dem 🚲"
    llms: Sequence[str] = ()
    tables: Mapping[str, Mapping[str, Mapping[str, object]]] = attrs.field(factory=dict)
    plugins: Sequence[object] = ()
    env: Mapping[str, str] = attrs.field(factory=dict)
    samples: Mapping[Operation, Sample] = attrs.field(factory=dict)
    services: Callable[[Services], Services] = as_they_are
    blocking_s: float = 0.05

    def sample(self, operation: Operation) -> Sample | None:
        return self.samples.get(operation) or SAMPLES.get(operation)
