"""Which tool result answers which call, and the ids both are sent with."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmproxy_core import BadRequest
from llmproxy_core.chat import Message, ToolCall, ToolResult
from llmproxy_core.wire import OpenCalls, made_id

_ID = re.compile(r"[a-zA-Z0-9_-]+").fullmatch
_PREFIX = "toolu_"


class ToolPairs:
    """
    The ids of a conversation's calls and results, in the order in which they are met.

    An id with characters that are not taken, or of a call before (`call_0` in each turn, as some servers count), is
    another one here, the same for a call and its result. Where a protocol has none, the results of a name answer its
    calls in their order. BadRequest for a call without a result in the turn after it, and for a result without a call:
    the provider would refuse both.
    """

    def __init__(self) -> None:
        self._open = OpenCalls[str]()  # their ids as they are sent
        self._made = 0
        self._sent: set[str] = set()
        self._place = ""

    def call(self, call: ToolCall, place: str) -> str:
        """The id that *call* is sent with."""
        self._made += 1
        sent = sent_id(call.id)
        if not sent or sent in self._sent:
            sent = made_id(sent or call.name, self._made, prefix=_PREFIX)
        self._sent.add(sent)
        self._open.add(call.id, call.name, sent)
        self._place = place
        return sent

    def result(self, result: ToolResult, place: str) -> str:
        """The id of the call that *result* answers."""
        sent = self._open.take(result.call_id, result.name)
        if sent is None:
            raise BadRequest(f"The tool result at '{place}' answers no call of the turn before it", param=place)
        return sent

    def close(self) -> None:
        """The turn that has to answer is over."""
        if self._open:
            raise BadRequest(f"The tool call at '{self._place}' has no result in the next turn", param=self._place)


def sent_id(own: str) -> str:
    """*own* as it is sent; "" for none."""
    return own if not own or _ID(own) else made_id(own, prefix=_PREFIX)


def called_names(messages: Sequence[Message]) -> list[str]:
    """The names of the tools that were called, each once."""
    names = [part.name for message in messages for part in message.content if isinstance(part, ToolCall)]
    return list(dict.fromkeys(names))
