"""Events of another protocol, or of a filter, as the events of a response: item by item, none inside another."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from llmproxy_core.carried import Carried, seal
from llmproxy_core.chat import (
    AudioDelta,
    ChatEvent,
    ChatReply,
    Choice,
    CitationAdded,
    End,
    Finish,
    Finished,
    OpaqueEvent,
    ReasoningDelta,
    RefusalDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    UsageReported,
)
from llmproxy_core.reply_events import events_of
from llmproxy_core.usage import Usage
from llmproxy_core.wire import Wire, decode_object, encode, join_object, made_id, text_signature, with_members
from llmproxy_openai.responses import response_object
from llmproxy_openai.responses.answer import retold
from llmproxy_openai.responses.citations import write_citation
from llmproxy_openai.responses.emitter import Emitter
from llmproxy_openai.responses.finish import is_cut
from llmproxy_openai.responses.open_item import OpenCall, OpenItem, OpenMessage, OpenReasoning
from llmproxy_openai.responses.paths import CREATE, DIALECT
from llmproxy_openai.responses.repeated import SILENCE

_SIGNS_CALLS = "gemini"
"""The one provider whose calls are signed, apart from its thinking."""


@attrs.frozen
class Said:
    """An event that waits; *template*: the provider's own event that said it."""

    event: ChatEvent
    template: bytes | None = None
    message: tuple[str, bytes] | None = None
    """The provider's own message, and its id, which this event is the first of."""


@attrs.frozen
class Passed:
    """An event of an item that only OpenAI knows; *place* is the item's, as the provider counts."""

    kind: str
    data: bytes
    place: int | None = None
    item: bytes | None = None


class Renderer:
    """
    Writes the events of one response.

    One item is open at a time. While a call's arguments are not all there, whatever is of another item waits: pieces of
    calls may come mixed, and what a filter holds back of arguments comes last.
    """

    def __init__(self, asked: Mapping[str, bytes] = SILENCE) -> None:
        """*asked* are the members that repeat the request (`repeated`)."""
        self._asked = asked
        self.emitter = Emitter()
        self.response: dict[str, bytes] = {}
        """The members of the response as it began; empty as long as it has not."""
        self.items: dict[int, bytes] = {}
        self.next_index = 0
        self.finish: Finish | None = None
        self.usage: Usage | None = None
        self.next_message: tuple[str, bytes] | None = None
        """The provider's own item, and its id, in which the next message is said."""
        self._open: OpenItem | None = None
        self._others: dict[int, OpenItem] = {}
        """Items that the provider itself began while another was open, and that are open still, by their place."""
        self._other_calls: dict[int, OpenCall] = {}  # by their calls; those that are closed by now too
        self._other_ids: dict[str, OpenItem] = {}
        self._waiting: list[Said | Passed] = []
        self._places: dict[int, int] = {}

    # -- what comes ----------------------------------------------------------------------------------------------

    def feed(self, event: ChatEvent, template: bytes | None = None) -> None:
        """Take one event."""
        match event:
            case Start():
                self._begin(event)
            case UsageReported():
                self.usage = event.usage
            case Finished():
                if event.choice == 0:
                    self.finish = event.finish
                    self.settle()
            case End():
                self.settle()
                self._end()
            case TextDelta(signature=str()):
                for each in text_signature.apart_in_stream(event):
                    self.feed(each, template)
            case _ if getattr(event, "choice", None) == 0:  # a response is one answer: the first of several
                self._take(Said(event, template, self._message_begun(event)))
            case _:
                pass

    def _message_begun(self, event: ChatEvent) -> tuple[str, bytes] | None:
        if not isinstance(event, TextDelta | RefusalDelta | CitationAdded):
            return None
        begun, self.next_message = self.next_message, None
        return begun

    def pass_on(self, passed: Passed) -> None:
        """Take an event of an item that only OpenAI knows."""
        self._take(passed)

    def item_ends(self) -> None:
        """The provider has begun another item: what is said next is not of the open one."""
        if self._may_close():
            self._close()

    def other_ends(self, index: int) -> None:
        """The provider has ended the item at *index*, which may be one of several that it has begun."""
        item = self._others.get(index)
        if item is not None and (not isinstance(item, OpenCall) or item.is_complete()):
            self.items[index] = self._others.pop(index).close()

    def part_ends(self) -> None:
        """The provider has begun another part of the open message."""
        if isinstance(self._open, OpenMessage):
            self._open.end_part()

    def settle(self) -> None:
        """Nothing more comes: end the open item, and say all that waits; an answer that was cut ends in the last."""
        waiting, self._waiting = _gathered(self._waiting), []
        if waiting or self._others:
            self._close()
        for index in sorted(self._others):
            self.items[index] = self._others.pop(index).close(cut=is_cut(self.finish) and not (waiting or self._others))
        for each in waiting:
            self._say(each)
        self._close(cut=is_cut(self.finish))

    def _take(self, each: Said | Passed) -> None:
        if self._waiting:
            if not self._is_of_open(each):
                self._waiting.append(each)
                return
        elif not self._is_of_open(each) and not self._may_close():
            self._waiting.append(each)
            return
        self._say(each)

    def _is_of_open(self, each: Said | Passed) -> bool:
        """Whether it is a piece of a call that is open."""
        event = each.event if isinstance(each, Said) else None
        return isinstance(event, ToolCallDelta) and self._call_at(event.index) is not None

    def _call_at(self, call: int) -> OpenCall | None:
        """The open item of the tool call *call*."""
        if isinstance(self._open, OpenCall) and self._open.call == call:
            return self._open
        other = self._other_calls.get(call)
        return other if other is not None and self._others.get(other.index) is other else None

    def _may_close(self) -> bool:
        return not isinstance(self._open, OpenCall) or self._open.is_complete()

    # -- what goes -----------------------------------------------------------------------------------------------

    def _begin(self, start: Start) -> None:
        if self.response:
            return
        self.response = response_object.begun(start, self._asked)
        whole = {"response": join_object(self.response)}
        self.emitter.emit("response.created", whole)
        self.emitter.emit("response.in_progress", whole)

    def _say(self, each: Said | Passed) -> None:
        if not self.response:
            self._begin(Start("", ""))
        if isinstance(each, Passed):
            self._pass(each)
            return
        template = each.template
        match each.event:
            case TextDelta(text=text, logprobs=logprobs) if text or logprobs is not None:
                self._message(each.message).text(text, logprobs, template)
            case AudioDelta(transcript=str(text)) if text:
                self._message(None).text(text, None, None)
            case RefusalDelta(text=text) if text:
                self._message(each.message).refusal(text, template)
            case CitationAdded(citation=citation):
                self._message(each.message).cite(write_citation(citation, Wire(CREATE.form, own=True)), template)
            case ReasoningDelta() as delta:
                self._think(delta, template)
            case ToolCallStart() as start:
                self._call(start)
            case ToolCallDelta() as piece if (call := self._call_at(piece.index)) is not None:
                call.add(piece.arguments, template)
            case OpaqueEvent(api=api) as opaque if api == CREATE.form:
                self._opaque(opaque.raw)
            case _:
                pass

    def _message(self, begun: tuple[str, bytes] | None) -> OpenMessage:
        """The message that is open; a new one, in the provider's own item where it has *begun* one."""
        if isinstance(self._open, OpenMessage) and (begun is None or begun[0] == self._open.id):
            return self._open
        self._close()
        item_id, item = begun or (self._id("msg_"), None)
        message = OpenMessage(self.emitter, self._place(), item_id, item=item, announced=False)
        self._open = message
        return message

    def _think(self, delta: ReasoningDelta, template: bytes | None) -> None:
        if not (delta.text or delta.signature or delta.redacted or delta.encrypted or delta.id):
            return
        if not isinstance(self._open, OpenReasoning) or self._open.is_other(delta):
            self._close()
            own_id = delta.id if delta.provider == DIALECT else None
            self._open = OpenReasoning(self.emitter, self._place(), own_id or self._id("rs_"), delta, announced=False)
        self._open.add(delta, template)

    def _call(self, start: ToolCallStart) -> None:
        self._close()
        call_id = start.id or self._id("call_")
        if start.signature is not None:
            self._carry(Carried(_SIGNS_CALLS, start.signature, id=call_id, of_call=True))
        prefix = "ctc_" if start.kind == "custom" else "fc_"
        self._open = OpenCall(
            self.emitter, self._place(), start.item_id or self._id(prefix), call_id, start, announced=False
        )

    def _carry(self, carried: Carried) -> None:
        """A thinking without a text, that brings *carried* back."""
        item_id = made_id(self.response.get("id"), self.next_index, "call", prefix="rs_")  # no other thinking's
        members = {"id": encode(item_id), "type": b'"reasoning"', "summary": b"[]"}
        self._opaque(join_object(members | {"encrypted_content": encode(seal(carried))}))

    def _opaque(self, item: bytes) -> None:
        """An item that comes whole."""
        self._close()
        index = self._place()
        members = {"output_index": encode(index), "item": item}
        self.emitter.emit("response.output_item.added", members)
        self.emitter.emit("response.output_item.done", members)
        self.items[index] = item

    def _pass(self, passed: Passed) -> None:
        """One of several events of an item; its place is its own from the first on."""
        members: dict[str, bytes] = {}
        if passed.place is not None:
            if passed.place not in self._places:
                self._close()
                self._places[passed.place] = self._place()
            index = self._places[passed.place]
            members["output_index"] = encode(index)
            if passed.item is not None:
                self.items[index] = passed.item
        self.emitter.emit(passed.kind, members, passed.data)

    def _place(self) -> int:
        self.next_index += 1
        return self.next_index - 1

    def _id(self, prefix: str) -> str:
        return made_id(self.response.get("id"), self.next_index, prefix=prefix)

    def _close(self, *, cut: bool = False) -> None:
        if self._open is not None:
            self.items[self._open.index] = self._open.close(cut=cut)
            self._open = None

    # -- the end -------------------------------------------------------------------------------------------------

    def output(self) -> list[bytes]:
        """The items so far."""
        return [self.items[index] for index in sorted(self.items)]

    def _end(self) -> None:
        if not self.response:
            self._begin(Start("", ""))
        members = response_object.ended(self.output(), self.finish, self.usage)
        self.response |= members
        if "error" in members:
            self.emitter.emit("error", {"error": _error_of(members["error"])})
        status = members["status"].strip(b'"').decode()
        self.emitter.emit(f"response.{status}", {"response": join_object(self.response)})

    def end_as(self, kind: str, data: bytes, response: bytes) -> None:
        """End with the provider's own event *data*, whose *response* has other texts in its items."""
        before = bytes(decode_object(response).get("output", b"[]"))
        output = retold(before, self.output())
        self.emitter.emit(kind, {"response": with_members(response, {"output": output})}, data)

    # -- what the provider said itself ---------------------------------------------------------------------------

    def note_open(self, item: OpenItem | None, index: int) -> None:
        """The provider has announced an item; None: one that is not said in pieces that are known here."""
        if self._open is not None:
            self._others[self._open.index] = self._other_ids[self._open.id] = self._open
            if isinstance(self._open, OpenCall):
                self._other_calls[self._open.call] = self._open
        self._open = item
        self.next_index = max(self.next_index, index + 1)
        if item is None:
            self._places[index] = index

    def note_done(self, index: int, item: bytes) -> None:
        """The provider has ended an item."""
        self.items[index] = item
        self._others.pop(index, None)
        if self._open is not None and self._open.index == index:
            self._open = None

    @property
    def open(self) -> OpenItem | None:
        return self._open

    def item_at(self, index: int) -> OpenItem | None:
        """The open item that the provider announced at *index*."""
        return self._open if self._open is not None and self._open.index == index else self._others.get(index)

    def item_of(self, item_id: str) -> OpenItem | None:
        """The open item *item_id*."""
        if self._open is not None and self._open.id == item_id:
            return self._open
        other = self._other_ids.get(item_id)
        return other if other is not None and self._others.get(other.index) is other else None


def _error_of(failure: bytes) -> bytes:
    return with_members(failure, {"type": b'"server_error"', "param": b"null"})


def _gathered(waiting: list[Said | Passed]) -> list[Said | Passed]:
    """*waiting* with the pieces of each call together, behind its start."""
    runs: list[list[Said | Passed]] = []
    calls: dict[int, list[Said | Passed]] = {}
    for each in waiting:
        event = each.event if isinstance(each, Said) else None
        if isinstance(event, ToolCallDelta) and event.index in calls:
            calls[event.index].append(each)
            continue
        run = [each]
        runs.append(run)
        if isinstance(event, ToolCallStart):
            calls[event.index] = run
    return [each for run in runs for each in run]


# -- whole answers -----------------------------------------------------------------------------------------------


def rendered_reply(reply: ChatReply, asked: Mapping[str, bytes]) -> bytes:
    """*reply* as the response that a stream of it would end with; *asked* as for the Renderer."""
    renderer = Renderer(asked)
    choices = tuple(attrs.evolve(choice, index=0) for choice in reply.choices[:1])
    for event in events_of(attrs.evolve(reply, choices=choices)):
        renderer.feed(event)
    return join_object(renderer.response)


def rendered_items(choice: Choice) -> list[bytes]:
    """The items that *choice* is said in."""
    renderer = Renderer()
    for event in events_of(ChatReply("", "", (attrs.evolve(choice, index=0),))):
        renderer.feed(event)
    return renderer.output()
