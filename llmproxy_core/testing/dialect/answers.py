"""Made answers: replies that say given words, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random

from llmproxy_core.chat import (
    ChatEvent,
    ChatReply,
    Choice,
    Citation,
    Finish,
    FinishReason,
    JSONText,
    Part,
    RefusalPart,
    TextPart,
)
from llmproxy_core.reply_events import events_of
from llmproxy_core.testing.chance import seeded
from llmproxy_core.testing.dialect.conversations import calls, chosen, said, thoughts
from llmproxy_core.testing.dialect.declared import DeclaredDialect
from llmproxy_core.testing.dialect.says import Says, with_needs
from llmproxy_core.usage import Usage

_FINISHES = {
    Says.FINISH_LENGTH: FinishReason.LENGTH,
    Says.FINISH_FILTER: FinishReason.CONTENT_FILTER,
    Says.FINISH_REFUSAL: FinishReason.REFUSAL,
    Says.FINISH_ERROR: FinishReason.ERROR,
}
_ANSWERED = frozenset(
    {
        Says.TOOLS,
        Says.PARALLEL_CALLS,
        Says.REASONING,
        Says.SIGNATURES,
        Says.REDACTED,
        Says.ENCRYPTED,
        Says.CALL_SIGNATURES,
        Says.N,
        Says.LOGPROBS,
        Says.REFUSALS,
        Says.CITATIONS,
        Says.CACHED_USAGE,
        Says.CACHE_WRITE_USAGE,
        Says.REASONING_USAGE,
        *_FINISHES,
    }
)
"""Words that an answer can say."""


def answer(words: frozenset[Says], random: Random, model: str, provider: str) -> ChatReply:
    """An answer that says *words*; what is signed was signed by *provider*."""
    count = 2 if Says.N in words else 1
    choices = tuple(_choice(index, words, random, provider) for index in range(count))
    usage = Usage(
        100 + random.randint(0, 9),
        50,
        cached_input_tokens=30 if Says.CACHED_USAGE in words else 0,
        cache_write_tokens=20 if Says.CACHE_WRITE_USAGE in words else 0,
        reasoning_tokens=10 if Says.REASONING_USAGE in words else 0,
    )
    return ChatReply("answer-1", model, choices, usage, 1_700_000_000)


def _choice(index: int, words: frozenset[Says], random: Random, provider: str) -> Choice:
    parts: list[Part] = [*thoughts(words, random, provider)]
    text = said(random)
    if Says.REFUSALS in words:
        return Choice(index, (*parts, RefusalPart(text)), Finish(FinishReason.STOP))
    cited = (Citation("url", "https://example.com/", "A page"),) if Says.CITATIONS in words else ()
    parts.append(TextPart(text, cited))
    called = calls(words, random, 2 if Says.PARALLEL_CALLS in words else 1) if Says.TOOLS in words else []
    finishes = [reason for word, reason in _FINISHES.items() if word in words] or [FinishReason.STOP]
    reason = FinishReason.TOOL_CALLS if called else random.choice(finishes)
    logprobs = _logprobs(text) if Says.LOGPROBS in words else None
    return Choice(index, (*parts, *called), Finish(reason), logprobs)


def _logprobs(text: str) -> JSONText:
    """As OpenAI spells them, which is the neutral form."""
    entry = {"token": text, "logprob": -0.5, "bytes": list(text.encode()), "top_logprobs": []}
    return json.dumps({"content": [entry], "refusal": None}, ensure_ascii=False, separators=(",", ":")).encode()


# -- which answers -----------------------------------------------------------------------------------------------


def one_by_one(declared: DeclaredDialect) -> Iterator[tuple[str, ChatReply]]:
    """An answer for each declared word that an answer can say, and one of plain text."""
    for word in [None, *sorted(declared.says & _ANSWERED)]:
        words: frozenset[Says] = frozenset() if word is None else with_needs(frozenset({word}))
        yield str(word or "text"), answer(words, seeded(0), declared.model, declared.dialect.name)


def some(declared: DeclaredDialect, random: Random) -> ChatReply:
    """An answer that says some of the declared words."""
    return answer(chosen(declared, random) & _ANSWERED, random, declared.model, declared.dialect.name)


def plain_events(declared: DeclaredDialect) -> list[ChatEvent]:
    """The events of an answer of thinking, text and calls, as far as these are declared."""
    words = declared.says & {Says.REASONING, Says.TOOLS}
    return events_of(answer(words, seeded(0), declared.model, declared.dialect.name))
