"""The grammars by the names of their protocols."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from llmproxy_core.testing.grammar.chat import ChatGrammar
from llmproxy_core.testing.grammar.generate import GenerateArrayGrammar, GenerateGrammar
from llmproxy_core.testing.grammar.grammar import Grammar
from llmproxy_core.testing.grammar.messages import MessagesGrammar
from llmproxy_core.testing.grammar.mistral import MistralGrammar
from llmproxy_core.testing.grammar.responses import ResponsesGrammar

GRAMMARS: Mapping[str, type[Grammar]] = MappingProxyType(
    {
        "openai": ChatGrammar,
        "openai-responses": ResponsesGrammar,
        "anthropic": MessagesGrammar,
        "gemini": GenerateGrammar,
        "gemini-array": GenerateArrayGrammar,
        "mistral": MistralGrammar,
    }
)


def check_stream(
    protocol: str, data: bytes, *, failed: bool = False, usage: bool | None = None, strict: bool = True
) -> list[str]:
    """
    What is wrong with the stream *data*, whole as a client of *protocol* got it; empty when it is right.

    *failed*: it must end with the protocol's own error, and must not look complete. *usage*: for `openai` and
    `mistral`, whether it must or must not tell the usage (None: it may); the others always must. *strict*: what our
    translations keep to; else what providers have been seen to send is right as well. KeyError for a protocol that
    is not in `GRAMMARS`.
    """
    return GRAMMARS[protocol](failed=failed, usage=usage, strict=strict).check(data)
