"""Strategies for hypothesis, which must be installed: requests and answers of what a protocol is declared to say."""

from __future__ import annotations

from hypothesis import strategies
from hypothesis.strategies import SearchStrategy

from llmproxy_core.chat import ChatReply, ChatRequest
from llmproxy_core.testing.dialect import answers, conversations
from llmproxy_core.testing.dialect.declared import DeclaredDialect
from llmproxy_core.testing.dialect.event_orders import EventOrder, orders


def requests(declared: DeclaredDialect) -> SearchStrategy[ChatRequest]:
    """Conversations that say some of the declared words."""
    return strategies.randoms(use_true_random=False).map(lambda random: conversations.some(declared, random))


def replies(declared: DeclaredDialect) -> SearchStrategy[ChatReply]:
    """Answers that say some of the declared words."""
    return strategies.randoms(use_true_random=False).map(lambda random: answers.some(declared, random))


def event_orders() -> SearchStrategy[EventOrder]:
    """Events of streams, in orders that some protocol's reader may give."""
    return strategies.randoms(use_true_random=False).map(lambda random: orders(random, 1)[-1])
