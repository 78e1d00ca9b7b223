"""Requests: their head, and their bytes with the fewest changes."""

from __future__ import annotations

from llmproxy_core.dialect import RequestHead
from llmproxy_core.jsontext import TopLevel, scan
from llmproxy_core.wire.form import Changes
from llmproxy_core.wire.members import BOOLEAN, STRING, Members, bad_request, decode
from llmproxy_core.wire.splice import decode_object, encode
from llmproxy_openai.chat_form import stream_options


def read_head(body: bytes) -> RequestHead:
    """Check *body* strictly and take what pass-through needs. BadRequest names the member that is wrong."""
    top = scan(body)
    names, model, stream, wants_usage = top.names, None, False, False
    if "model" in names and (text := top.text("model")) is not None:
        model = decode(STRING, text, "model", bad_request)
    if "stream" in names and (text := top.text("stream")) is not None:
        stream = decode(BOOLEAN, text, "stream", bad_request)
    if "stream_options" in names and (text := top.text("stream_options")) is not None:
        options = Members(text, "stream_options", bad_request)
        asks = options.take("include_usage", BOOLEAN)
        wants_usage = stream and asks is True
    return RequestHead(model, stream, wants_usage)


def prepare(body: bytes, model: str | None, stream: bool | None, *, ask_usage: bool) -> bytes:
    """*body* asking for *model*, streamed or not, and its stream for usage; see `Dialect.prepare`."""
    raws = decode_object(body)
    members = {name: bytes(raws[name]) for name in ("model", "stream", "stream_options") if name in raws}
    changes: Changes = {}
    if model is not None and members.get("model") != (text := encode(model)):
        changes["model"] = text
    was_stream = members.get("stream") == b"true"
    is_stream = was_stream if stream is None else stream
    if is_stream != was_stream:
        changes["stream"] = encode(is_stream)
    options = members.get("stream_options")
    if was_stream and not is_stream and options is not None:
        changes["stream_options"] = None
    elif is_stream and ask_usage:
        changes |= stream_options(True, True, options)
        if changes["stream_options"] == options:
            del changes["stream_options"]
    return TopLevel(body, raws).splice(changes) if changes else body
