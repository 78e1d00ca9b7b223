"""
Whether a stream, as its client gets it, keeps to the grammar of its protocol:

    assert check_stream("anthropic", body) == []

One checker for each protocol, with no knowledge of the code that writes the streams.
"""

from llmproxy_core.testing.grammar.chat import ChatGrammar
from llmproxy_core.testing.grammar.generate import GenerateArrayGrammar, GenerateGrammar
from llmproxy_core.testing.grammar.grammar import EventGrammar, Grammar
from llmproxy_core.testing.grammar.messages import MessagesGrammar
from llmproxy_core.testing.grammar.mistral import MistralGrammar
from llmproxy_core.testing.grammar.protocols import GRAMMARS, check_stream
from llmproxy_core.testing.grammar.responses import ResponsesGrammar

__all__ = [
    "check_stream",
    "GRAMMARS",
    "Grammar",
    "EventGrammar",
    "ChatGrammar",
    "ResponsesGrammar",
    "MessagesGrammar",
    "GenerateGrammar",
    "GenerateArrayGrammar",
    "MistralGrammar",
]
