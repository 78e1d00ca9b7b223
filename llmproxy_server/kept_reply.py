"""Kept answers, read as conversations: for who writes down what was said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llmproxy_core.chat import ChatReply
from llmproxy_core.dialect import Api, Dialect, Operation
from llmproxy_core.errors import ProxyError, raise_unless_bug
from llmproxy_core.outcome import KeptBody
from llmproxy_core.reply_events import Assembler

_PIECE = 16 << 10  # bytes of a stream read at once: an error in it costs what follows, not what came before


class ReplyReader:
    """Reads the answers of every dialect."""

    def __init__(self, dialects: Iterable[Dialect]) -> None:
        self._apis: Mapping[str, tuple[Dialect, Api]] = {
            api.name: (dialect, api) for dialect in dialects for api in dialect.apis
        }

    def reply(self, body: KeptBody) -> ChatReply | None:
        """What *body* amounts to, as far as it was kept; None when it is no answer to a chat, or cannot be read."""
        found = self._apis.get(body.api)
        if found is None or found[1].operation is not Operation.CHAT:
            return None
        dialect, api = found
        try:
            return _folded(dialect, api, body.data) if body.stream else dialect.read_reply(api, body.data)
        except BaseException as bug:  # noqa: BLE001 - a dialect's bug, or an answer that is none: the call is over, and was served
            raise_unless_bug(bug)
            return None


def _folded(dialect: Dialect, api: Api, data: bytes) -> ChatReply:
    """The reply that a stream amounts to, also one that was broken off."""
    reader, assembler = dialect.reader(api), Assembler()
    try:
        for start in range(0, len(data), _PIECE):
            for frame in reader.feed(data[start : start + _PIECE]):
                assembler.feed(frame.events)
    except ProxyError:
        pass  # the rest is not the protocol; who asks knows how it ended
    return assembler.reply()
