"""What the author of a dialect says of it, for the tests to hold it to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol

import attrs

from llmproxy_core.dialect import Api, Dialect, Operation
from llmproxy_core.testing.dialect.says import Says, with_needs
from llmproxy_core.testing.grammar import GRAMMARS, check_stream


@attrs.frozen(kw_only=True)
class Recorded:
    """
    Real traffic of the protocol, as bytes: what of *api* (its name) was asked, and answered whole or as a stream.

    None: not recorded. *name* is for messages.
    """

    api: str
    request: bytes | None = None
    reply: bytes | None = None
    stream: bytes | None = None
    name: str = "a recording"

    def __str__(self) -> str:
        return self.name


@attrs.frozen
class RecordedError:
    """An error of the provider: its status, body, and headers as (lower-case name, value)."""

    status: int
    body: bytes
    headers: Sequence[tuple[str, str]] = (("content-type", "application/json"),)


class StreamGrammar(Protocol):
    """
    What is wrong with a whole *stream* of *api* that clients are to take; empty when it is right.

    *failed*: it must end with the protocol's own error, and not look complete.
    """

    def __call__(self, api: Api, stream: bytes, *, failed: bool) -> Sequence[str]: ...


def no_grammar(api: Api, stream: bytes, *, failed: bool) -> Sequence[str]:
    """For a protocol whose streams only its own reader judges."""
    return ()


def grammar_of(protocol: str) -> StreamGrammar:
    """The checker of one of `llmproxy_core.testing.grammar.GRAMMARS`; for others none."""

    def check(api: Api, stream: bytes, *, failed: bool) -> Sequence[str]:
        variant = protocol if api.stream_type == "text/event-stream" else f"{protocol}-array"
        return check_stream(variant, stream, failed=failed) if variant in GRAMMARS else ()

    return check if protocol in GRAMMARS else no_grammar


def _words(words: Collection[str]) -> frozenset[Says]:
    return with_needs(frozenset(Says(word) for word in words))


AsksAgain = Callable[[bytes], bytes]
"""The body of a client's next request, the answer that it got in its history, as its SDK sends it."""


@attrs.frozen(kw_only=True, eq=False)
class DeclaredDialect:
    """
    A dialect, and what its protocol can say.

    *says*: each a `Says`, or its word. What is declared must survive from the neutral conversation into the protocol
    and back; what is not must be refused by name, never lost. *apis*: names of the chat APIs that say so much (default:
    all); declare others apart. *model*: the name of a model that takes all of it, for dialects that know some.
    *never_together*: words that the protocol does not take in one request.

    *samples* and *errors* are real traffic, the more the better. *grammar* judges the streams that are written
    (default: the checker of the dialect's name, where there is one). *asks_again* makes the next request of a client
    that got an answer, to see that signatures of other providers come back.
    """

    dialect: Dialect
    says: frozenset[Says] = attrs.field(default=frozenset(), converter=_words)
    apis: Collection[str] = ()
    model: str = "scripted-1"
    never_together: Collection[Collection[str]] = ()
    samples: Sequence[Recorded] = ()
    errors: Sequence[RecordedError] = ()
    grammar: StreamGrammar = attrs.field(
        default=attrs.Factory(lambda declared: grammar_of(declared.dialect.name), takes_self=True)
    )
    asks_again: AsksAgain | None = None
    examples: int = 40
    """How many made conversations, answers and orders of events each law is tried on."""

    def chat_apis(self, *, stream: bool | None = None) -> Iterator[Api]:
        """The chat APIs that are tested: those that answer as *stream* says; None: all."""
        for api in self.dialect.apis:
            if api.operation is not Operation.CHAT or (self.apis and api.name not in self.apis):
                continue
            if stream is None or api.streams in (None, stream):
                yield api

    def of(self, operation: Operation) -> Iterator[Api]:
        """The APIs of another operation."""
        return (api for api in self.dialect.apis if api.operation is operation)

    def recorded(self, api: Api) -> Iterator[Recorded]:
        return (sample for sample in self.samples if sample.api == api.name)
