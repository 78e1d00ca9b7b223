"""
Calls of tools: `{"id", "function": {"name", "arguments": {…}}}`.

Servers before 0.12 give calls no id, and pair results with them by `tool_name`: ids are made then, and never sent back
to where they were not.
"""

import msgspec

from llmproxy_core.chat import ToolCall, remember
from llmproxy_core.wire import (
    STRING,
    Members,
    OpenCalls,
    Wire,
    decode_object,
    encode,
    join_object,
    made_id,
    nested,
    text_tool,
)

_MADE = "call_ollama_"


def made_call_id(*facts: object) -> str:
    """The id of a call that has none."""
    return made_id(*facts, prefix=_MADE)


def is_made(call_id: str) -> bool:
    return call_id.startswith(_MADE)


class Pairing:
    """Which result belongs to which call, in one conversation read from its beginning."""

    def __init__(self) -> None:
        self._open = OpenCalls[str]()  # their ids
        self._made = 0

    def made_id(self, name: str | None) -> str:
        self._made += 1
        return made_call_id(self._made, name)

    def begin(self, call: ToolCall) -> None:
        self._open.add(call.id, call.name, call.id)

    def answer(self, call_id: str | None, name: str | None) -> str:
        """The id of the call that a result with this *call_id* and *name*, either or none, belongs to."""
        return self._open.take(call_id or "", name) or call_id or self.made_id(name)


def read_call(text: bytes, place: str, wire: Wire, *facts: object) -> ToolCall:
    """One call; the id of one without is made of *facts*."""
    members = Members(text, place, wire.fail)
    function = members.need_object("function")
    name = function.need("name", STRING)
    arguments = function.raw("arguments") or b"{}"
    if not arguments.startswith(b"{"):
        raise wire.fail(function.at("arguments"), "an object")
    given = members.take("id", STRING)
    # Which kind it is and its number say nothing; clients repeat them in their history.
    members.raw("type")
    function.raw("index")
    extra = members.rest() | function.rest("function.")
    call_id, said = given or made_call_id(*facts, name), arguments.decode()
    custom = text_tool.clients_name(name)
    if custom is None:
        call = ToolCall(call_id, name, said, extra=extra)
    else:
        call = ToolCall(call_id, custom, text_tool.read_text(said), "custom", extra=extra)
    return remember(call, wire.api, text)


def write_call(call: ToolCall, place: str, wire: Wire) -> bytes:
    """One call of a request's history."""
    if (kept := wire.kept(call.raw)) is not None:
        return kept
    extra = wire.unknown(call.extra, place, "function")
    more = nested(call.extra, "function") if wire.own else {}
    known = {} if not call.id or (wire.own and is_made(call.id)) else {"id": encode(call.id)}
    if call.kind == "custom":
        arguments = text_tool.write_text(call.arguments)
    else:
        arguments, is_wrapped = arguments_object(call.arguments)
        if is_wrapped:
            wire.convert(place + ".arguments", "wrapped")
    function = {"name": encode(sent_name(call)), "arguments": arguments}
    return join_object(known | {"function": join_object(function | more)} | extra)


def sent_name(call: ToolCall) -> str:
    """What the tool that is called is called here."""
    return text_tool.sent_name(call.name) if call.kind == "custom" else call.name


def answered_call(call_id: str, name: str, arguments: str) -> bytes:
    """One call of an answer."""
    function = join_object({"name": encode(name), "arguments": arguments_object(arguments)[0]})
    return join_object(({"id": encode(call_id)} if call_id else {}) | {"function": function})


def arguments_object(text: str) -> tuple[bytes, bool]:
    """Arguments, which are text elsewhere, as an object on one line; and whether one was made around what is none."""
    raw = text.encode(errors="replace")
    if not raw.strip():
        return b"{}", False
    try:
        decode_object(raw)
        return one_line(raw), False
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return join_object({"arguments": encode(raw.decode())}), True


def one_line(text: bytes) -> bytes:
    """The JSON *text* without line ends, which would cut a line of a stream in two."""
    return msgspec.json.format(text, indent=-1) if b"\n" in text or b"\r" in text else text
