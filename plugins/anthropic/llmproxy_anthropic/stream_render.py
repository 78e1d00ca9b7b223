"""Events of another protocol, or of a filter, written as a stream of our own making."""

from __future__ import annotations

import time

import attrs

from llmproxy_anthropic.apis import MESSAGES, NAME
from llmproxy_anthropic.block_queue import Block, BlockQueue, Tell
from llmproxy_anthropic.citation import write_citation
from llmproxy_anthropic.finish import write_finish
from llmproxy_anthropic.reply_write import message_id
from llmproxy_anthropic.thinking_block import call_signature, redacted_block
from llmproxy_anthropic.usage import write_usage
from llmproxy_core import Carried, Usage, seal
from llmproxy_core.chat import (
    AudioDelta,
    ChatEvent,
    CitationAdded,
    End,
    Finish,
    Finished,
    OpaqueEvent,
    Ping,
    ReasoningDelta,
    RefusalDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    UsageReported,
)
from llmproxy_core.wire import (
    Wire,
    decode_object,
    encode,
    encode_event,
    join_object,
    made_id,
    text_signature,
    with_members,
)

PING = b'event: ping\ndata: {"type": "ping"}\n\n'
_STOP = encode_event(b'{"type":"message_stop"}', "message_stop")
_EMPTY = {
    "text": b'{"type":"text","text":""}',
    "thinking": b'{"type":"thinking","thinking":"","signature":""}',
}
_NO_MODEL = "unknown"  # clients want a name
_STREAMED_INPUT = frozenset({"server_tool_use", "mcp_tool_use"})


class MessageRenderer:
    """
    Writes whole events, in the order of this protocol whatever that of the events given.

    The message begins with the first event that says something, so that it can tell the input's tokens if they are
    known by then; how it ends is told last, when the usage is known.
    """

    def __init__(self, out: list[bytes]) -> None:
        self._out = out
        self.blocks = BlockQueue(out)
        self.calls: dict[int, Block] = {}
        """The tool calls' blocks, by their index."""
        self.started = False
        self.finished = False
        """How it ended has been told."""
        self.usage: Usage | None = None
        self.held: Block | None = None
        """A text that its provider has ended, of which a filter may still hold some: what it gives belongs there."""
        self._start = Start("", "")
        self._finish: Finish | None = None
        self._refused = False
        self._citations: list[bytes] = []
        self._of_text: ChatEvent | None = None
        """What carries the signature of the text that was said last, until something follows it."""

    # -- the message -------------------------------------------------------------------------------------------

    def render(self, event: ChatEvent) -> None:
        """Put out what *event* says; of other choices than the first, nothing."""
        if getattr(event, "choice", None):
            return
        match event:
            case Start():
                self._start = event
            case UsageReported():
                self.usage = event.usage
            case Ping():
                if self.started:
                    self._out.append(PING)
            case Finished():
                self._finish = event.finish
                self._begin()
                self.close_all()
            case End():
                self.end()
                self._out.append(_STOP)
            case _:
                self._content(event)

    def _begin(self) -> None:
        if self.started:
            return
        self.started = True
        known = self.usage or Usage(service_tier=self._start.service_tier)
        usage = attrs.evolve(known, output_tokens=1, reasoning_tokens=0)
        message = {
            "id": encode(self._start.id or message_id(self._start.model)),
            "type": b'"message"',
            "role": b'"assistant"',
            "model": encode(self._start.model or _NO_MODEL),
            "content": b"[]",
            "stop_reason": b"null",
            "stop_sequence": b"null",
            "usage": write_usage(usage),
        }
        self._event("message_start", {"message": join_object(message)})

    def end(self) -> None:
        """Close what is open, and tell how the message ended."""
        self._begin()
        self.close_all()
        if self.finished:
            return
        self.finished = True
        finish = write_finish(self._finish, called=bool(self.calls), refused=self._refused)
        self._event("message_delta", {"delta": join_object(finish), "usage": self._last_usage()})

    def _last_usage(self) -> bytes:
        """The whole usage; the tier is told where the message begins."""
        return write_usage(attrs.evolve(self.usage or Usage(), service_tier=None))

    def _event(self, kind: str, members: dict[str, bytes]) -> None:
        self._out.append(_event(kind, members))

    # -- its blocks --------------------------------------------------------------------------------------------

    def _content(self, event: ChatEvent) -> None:
        match event:
            case TextDelta(signature=str()):
                self._signed(event)
            case TextDelta(text=text) | RefusalDelta(text=text) | AudioDelta(transcript=str(text)) if text:
                self._begin()
                self._carry()
                self._refused = self._refused or isinstance(event, RefusalDelta)
                self._text(text)
            case CitationAdded():
                self._begin()
                self._citation(event)
            case ReasoningDelta():
                self._begin()
                self._carry()
                self._reasoning(event)
            case ToolCallStart():
                self._begin()
                self._carry()
                self._call(event)
            case ToolCallDelta():
                self._arguments(event)
            case OpaqueEvent(choice=0) if event.api == MESSAGES.form:
                self._begin()
                self._opaque(event)
            case _:
                pass

    def _signed(self, event: TextDelta) -> None:
        """
        A text that has a signature: it goes before the text, or behind what was said of it.

        Never at the end: Claude Code takes the last block for the result of what it was asked.
        """
        is_new = self._may_go_on("text") is None and self._of_text is None
        told = text_signature.apart_in_stream(event, first=is_new)
        carried = told[0] if is_new else told[-1]
        if is_new:
            self._of_text = carried
        for each in told:
            if each is not carried:
                self._content(each)
        if not is_new:
            self._of_text = carried

    def _carry(self) -> None:
        """The signature of a text, now that something follows it."""
        carried, self._of_text = self._of_text, None
        if isinstance(carried, ReasoningDelta):
            self._whole(redacted_block(seal(_carried(carried, None))))

    def _text(self, text: str) -> None:
        block = self.held or self._going_on("text")
        for citation in self._citations:
            self._say(block, "citations_delta", {"citation": citation})
        self._citations.clear()
        self._say(block, "text_delta", {"text": encode(text)})

    def _citation(self, event: CitationAdded) -> None:
        """One without a text waits for it: a block that says nothing could not be sent back."""
        citation = write_citation(event.citation, Wire(MESSAGES.form, own=True))
        if self._may_go_on("text") is None:
            self._citations.append(citation)
        else:
            self._say(self._going_on("text"), "citations_delta", {"citation": citation})

    def _going_on(self, kind: str) -> Block:
        """The block of *kind* that was begun last, a new one where another was."""
        return self._may_go_on(kind) or self.open(kind, _EMPTY[kind])

    def _may_go_on(self, kind: str) -> Block | None:
        last = self.blocks.last
        if last is None or last.kind != kind or last.closed or last.signed:
            return None
        return last

    def open(self, kind: str, block: bytes) -> Block:
        """Begin a block as the JSON *block*."""
        self.settle()
        begun = self.blocks.begin(kind)
        self.blocks.say(begun, _of_block("content_block_start", {"content_block": block}))
        return begun

    def settle(self) -> None:
        """Another block begins: close the last one, unless more of its arguments must come, or its end is copied."""
        if self.blocks.copies:
            return
        last = self.blocks.last
        if last is not None and not last.closed and last.is_whole and last is not self.held:
            self.close(last)

    def release(self) -> None:
        """Another text begins: what a filter still holds of the one before comes with that one."""
        held, self.held = self.held, None
        if held is not None:
            self.close(held)

    def close_all(self) -> None:
        self.held = None
        if self.blocks.copies:
            self.blocks.forget()
        for block in self.blocks.unclosed:
            self.close(block)

    def close(self, block: Block) -> None:
        """End *block*, with what is said at its end only."""
        if block.kind == "custom" and not block.native:
            text = join_object({"input": encode("".join(block.arguments))}).decode()
            self._say(block, "input_json_delta", {"partial_json": encode(text)})
        if block.carried is not None:
            self._say(block, "signature_delta", {"signature": encode(seal(block.carried))})
        self.blocks.close(block, block.stop or _of_block("content_block_stop", {}))

    def _say(self, block: Block, kind: str, members: dict[str, bytes]) -> None:
        delta = join_object({"type": encode(kind)} | members)
        self.blocks.say(block, _of_block("content_block_delta", {"delta": delta}))

    def _whole(self, block: bytes) -> None:
        """A block that is whole from its beginning."""
        self.close(self.open("whole", block))

    # -- thinking ----------------------------------------------------------------------------------------------

    def _reasoning(self, event: ReasoningDelta) -> None:
        if event.provider == NAME and event.redacted is not None:
            self._whole(redacted_block(event.redacted))
            return
        if not event.text and event.signature is None and self._may_go_on("thinking") is None:
            if event.redacted or event.encrypted:
                self._whole(redacted_block(seal(_carried(event, None))))
            return
        block = self._going_on("thinking")
        if event.text:
            self._say(block, "thinking_delta", {"thinking": encode(event.text)})
        self._sign(block, event)

    def _sign(self, block: Block, event: ReasoningDelta) -> None:
        """Our own signature at once; another's under a seal, when all that belongs to it has come."""
        if event.provider == NAME:
            if event.signature is not None:
                self._say(block, "signature_delta", {"signature": encode(event.signature)})
                block.signed = True
        elif not block.native:
            block.carried = _carried(event, block.carried)
            block.signed = event.signature is not None

    # -- calls ---------------------------------------------------------------------------------------------------

    def _call(self, event: ToolCallStart) -> None:
        call_id = event.id or made_id(self._start.id or time.time_ns(), event.index, prefix="toolu_")
        if event.signature is not None:
            self._whole(call_signature(event.signature, call_id))
        call = {
            "type": b'"tool_use"',
            "id": encode(call_id),
            "name": encode(event.name),
            "input": b"{}",
        }
        kind = "custom" if event.kind == "custom" else "tool"
        self.calls[event.index] = self.open(kind, join_object(call))

    def _arguments(self, event: ToolCallDelta) -> None:
        """More arguments of a call that is not closed: after the whole of them comes nothing but white space."""
        block = self.calls.get(event.index)
        if block is None or block.closed or not event.arguments:
            return
        block.arguments.append(event.arguments)
        if block.kind == "tool":
            self._say(block, "input_json_delta", {"partial_json": encode(event.arguments)})

    def _opaque(self, event: OpaqueEvent) -> None:
        if event.kind not in _STREAMED_INPUT:
            self._whole(event.raw)
            return
        given = bytes(decode_object(event.raw).get("input", b"{}"))
        block = self.open("whole", with_members(event.raw, {"input": b"{}"}))
        self._say(block, "input_json_delta", {"partial_json": encode(given.decode())})
        self.close(block)


def _of_block(kind: str, members: dict[str, bytes]) -> Tell:
    return lambda index: _event(kind, {"index": encode(index)} | members)


def _event(kind: str, members: dict[str, bytes]) -> bytes:
    return encode_event(join_object({"type": encode(kind)} | members), kind)


def _carried(event: ReasoningDelta, before: Carried | None) -> Carried:
    """What has to come back with a thinking, all its events taken together."""
    known = before or Carried("")
    return Carried(
        event.provider or known.provider,
        event.signature or known.signature,
        event.redacted or known.redacted,
        event.encrypted or known.encrypted,
        event.id or known.id,
    )
