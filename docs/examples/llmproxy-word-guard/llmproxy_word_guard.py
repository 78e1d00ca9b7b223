"""The processor word_guard for llmproxy: keeps words out of questions and answers."""

from collections.abc import Iterable
from typing import Any

import attrs

from llmproxy_core import (
    Exchange,
    GuardrailBlocked,
    Handler,
    Operation,
    ProcessorType,
    Response,
    Services,
    WordWatcher,
    each,
    hookimpl,
    not_empty,
    option,
)


@attrs.frozen(kw_only=True)
class WordGuardConfig:
    """Refuses calls whose question or answer holds one of the words."""

    words: tuple[str, ...] = option(
        "What must be in no question and no answer; small and capital letters differ.",
        validator=each(not_empty),
        fills_config_value=True,
        example=["Project Daedalus"],
    )


class WordGuard:
    """One instance serves all calls: nothing of a call is kept on it."""

    def __init__(self, config: WordGuardConfig, services: Services) -> None:
        self._words = config.words

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        for message in exchange.request.chat.messages:
            if any(word in message.text for word in self._words):
                raise GuardrailBlocked("The question holds a word that must not leave this house", param="messages")
        response = await call_next(exchange)
        response.watch(lambda channel: WordWatcher(self._words, _found))
        return response


def _found(word: str) -> None:
    # The word itself is not repeated: who may not see it in the answer may not see it in the error.
    raise GuardrailBlocked("The answer was stopped: it holds a word that must not leave this house")


WORD_GUARD = ProcessorType(
    name="word_guard",
    config=WordGuardConfig,
    build=WordGuard,
    operations=frozenset({Operation.CHAT}),
    skippable=False,  # a guard that is passed by guards nothing
)


@hookimpl
def llmproxy_processors() -> Iterable[ProcessorType[Any]]:
    return [WORD_GUARD]
