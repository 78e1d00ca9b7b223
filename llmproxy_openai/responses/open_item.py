"""Items of an answer while they are being said: each is announced, said in pieces, and told once more when it ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import msgspec

from llmproxy_core.carried import Carried, seal
from llmproxy_core.chat import ReasoningDelta, ToolCallStart
from llmproxy_core.wire import decode_array, decode_object, encode, join_array, join_object, with_members
from llmproxy_openai.responses.answer import retold, text_member, thinking_part
from llmproxy_openai.responses.emitter import Emitter
from llmproxy_openai.responses.parts import rewrite_text
from llmproxy_openai.responses.paths import DIALECT

_ADDED = "response.output_item.added"
_DONE = "response.output_item.done"


class OpenItem(ABC):
    """*index* is its place in the output. One that the provider announced itself is not announced again."""

    def __init__(self, emitter: Emitter, index: int, item_id: str) -> None:
        self.emitter = emitter
        self.index = index
        self.id = item_id
        self._place = {"item_id": encode(item_id), "output_index": encode(index)}

    def _announce(self, members: Mapping[str, bytes]) -> None:
        """Announce it as *members*; where the provider has, those are what its own item says too."""
        told = self.emitter.told(_ADDED, self.id, "item", members["type"])
        item = join_object(members) if told is None else with_members(told, members)
        self.emitter.emit(_ADDED, {"output_index": encode(self.index), "item": item}, item_id=self.id)

    def _tell(self, kind: str, members: Mapping[str, bytes], template: bytes | None = None) -> None:
        self.emitter.emit(f"response.{kind}", self._place | dict(members), template, self.id)

    @abstractmethod
    def close(self, *, cut: bool = False) -> bytes:
        """End it; gives the whole item. *cut*: the answer ended within it."""

    def _done(self, members: Mapping[str, bytes], item: bytes) -> bytes:
        """The whole item: *item* with *members*; where the provider has told it, that with what is said otherwise."""
        told = self.emitter.told(_DONE, self.id, "item", bytes(decode_object(item)["type"]))
        if told is None:
            whole = with_members(item, members)
        else:
            whole = retold(b"[" + told + b"]", [with_members(told, members)])[1:-1]
        self.emitter.emit(_DONE, {"output_index": encode(self.index), "item": whole}, item_id=self.id)
        self.emitter.forget(self.id)
        return whole


class OpenMessage(OpenItem):
    """A message: parts of text, and of refusal."""

    def __init__(self, emitter: Emitter, index: int, item_id: str, *, item: bytes | None, announced: bool) -> None:
        """*item* is the provider's own, empty as yet."""
        super().__init__(emitter, index, item_id)
        empty = {"type": b'"message"', "status": b'"in_progress"', "content": b"[]", "role": b'"assistant"'}
        members = {"id": encode(item_id)} | empty
        self._item = item or join_object(members)
        self._parts: list[bytes] = []
        self._kind: str | None = None
        self._texts: list[str] = []
        self._annotations: list[bytes] = []
        self._logprobs: list[bytes] = []
        if not announced:
            self._announce(members)

    # -- saying --------------------------------------------------------------------------------------------------

    def text(self, text: str, logprobs: bytes | None, template: bytes | None) -> None:
        self._begin("output_text")
        self._texts.append(text)
        spelled = _entries(logprobs)
        self._logprobs += spelled
        members = {"delta": encode(text), "logprobs": join_array(spelled)}
        self._tell("output_text.delta", self._part_place() | members, template)

    def refusal(self, text: str, template: bytes | None) -> None:
        self._begin("refusal")
        self._texts.append(text)
        self._tell("refusal.delta", self._part_place() | {"delta": encode(text)}, template)

    def cite(self, annotation: bytes, template: bytes | None) -> None:
        self._begin("output_text")
        members = {"annotation_index": encode(len(self._annotations)), "annotation": annotation}
        self._annotations.append(annotation)
        self._tell("output_text.annotation.added", self._part_place() | members, template)

    def close(self, *, cut: bool = False) -> bytes:
        self.end_part()
        return self._done({"status": _status(cut=cut), "content": join_array(self._parts)}, self._item)

    # -- what the provider said itself ---------------------------------------------------------------------------

    def note_part(self, kind: str) -> None:
        self._kind = kind

    def note_text(self, text: str) -> None:
        self._texts.append(text)

    def note_annotation(self, annotation: bytes) -> None:
        self._annotations.append(annotation)

    def note_part_done(self, part: bytes) -> None:
        self._parts.append(part)
        self._forget()

    # -- parts ---------------------------------------------------------------------------------------------------

    def _part_place(self) -> dict[str, bytes]:
        return {"content_index": encode(len(self._parts))}

    def _begin(self, kind: str) -> None:
        if self._kind == kind:
            return
        self.end_part()
        self._kind = kind
        empty = join_object(
            {"type": b'"output_text"', "annotations": b"[]", "logprobs": b"[]", "text": b'""'}
            if kind == "output_text"
            else {"type": b'"refusal"', "refusal": b'""'}
        )
        self._tell("content_part.added", self._part_place() | {"part": empty})

    def end_part(self) -> None:
        """End the open part, if there is one."""
        if self._kind is None:
            return
        text = encode("".join(self._texts))
        told = self.emitter.told("response.content_part.done", self.id, "part", encode(self._kind))
        if self._kind == "output_text":
            logprobs = join_array(self._logprobs)
            self._tell("output_text.done", self._part_place() | {"text": text, "logprobs": logprobs})
            part = join_object(
                {
                    "type": b'"output_text"',
                    "annotations": join_array(self._annotations),
                    "logprobs": logprobs,
                    "text": text,
                }
            )
        else:
            self._tell("refusal.done", self._part_place() | {"refusal": text})
            part = join_object({"type": b'"refusal"', "refusal": text})
        if told is not None:
            part = rewrite_text(told, "".join(self._texts))
        self._tell("content_part.done", self._part_place() | {"part": part})
        self.note_part_done(part)

    def _forget(self) -> None:
        self._kind = None
        self._texts, self._annotations, self._logprobs = [], [], []


def _status(*, cut: bool) -> bytes:
    return b'"incomplete"' if cut else b'"completed"'


def _entries(logprobs: bytes | None) -> list[bytes]:
    """The entries of probabilities in the form of chat completions."""
    if logprobs is None:
        return []
    try:
        content = decode_object(logprobs).get("content")
        return [] if content is None else [bytes(entry) for entry in decode_array(content)]
    except msgspec.MsgspecError:
        return []


class OpenReasoning(OpenItem):
    """Thinking. What another provider must have back is carried where OpenAI's own encrypted thinking stands."""

    def __init__(self, emitter: Emitter, index: int, item_id: str, first: ReasoningDelta, *, announced: bool) -> None:
        super().__init__(emitter, index, item_id)
        self._is_own = first.provider == DIALECT
        self._is_summary = first.summary or not self._is_own
        self._delta = first
        self._of = first.id
        self._texts: list[str] = []
        self._in_part = False
        self._parts: list[bytes] = []
        self._carried = ReasoningDelta(0, "")
        if not announced:
            item = {"id": encode(item_id), "type": b'"reasoning"', "summary": b"[]"}
            self._announce(item)

    def is_other(self, delta: ReasoningDelta) -> bool:
        """Whether *delta* belongs to another thinking than this one."""
        carried = self._carried
        is_whole = carried.signature or carried.redacted or carried.encrypted
        brings = delta.text or delta.signature or delta.redacted or delta.encrypted
        if delta.redacted is not None and (self._texts or self._parts):
            return True
        is_named_otherwise = delta.id is not None and self._of is not None and delta.id != self._of
        return bool(is_whole and brings) or is_named_otherwise

    def add(self, delta: ReasoningDelta, template: bytes | None) -> None:
        carried = self._carried
        carried.signature = delta.signature or carried.signature
        carried.redacted = delta.redacted or carried.redacted
        carried.encrypted = delta.encrypted or carried.encrypted
        self._of = self._of or delta.id
        if not delta.text:
            return
        if not self._in_part:
            self._in_part = True
            part = thinking_part("", summary=self._is_summary)
            self._tell(
                "reasoning_summary_part.added" if self._is_summary else "content_part.added",
                self._part_place() | {"part": part},
            )
        self._texts.append(delta.text)
        self._tell(f"{self._kind()}.delta", self._part_place() | {"delta": encode(delta.text)}, template)

    def close(self, *, cut: bool = False) -> bytes:
        """See OpenItem; it has no status."""
        self._end()
        members = {"id": encode(self.id), "type": b'"reasoning"', "summary": b"[]"}
        said = {"summary" if self._is_summary else "content": join_array(self._parts)}
        encrypted = self._carried.encrypted if self._is_own else self._sealed()
        if encrypted is not None:
            members["encrypted_content"] = encode(encrypted)
        return self._done(said, join_object(members | said))

    def _sealed(self) -> str:
        """Also where nothing must come back: so it is known for what it is, and OpenAI never sees it."""
        carried = self._carried
        provider = self._delta.provider or ""
        return seal(Carried(provider, carried.signature, carried.redacted, carried.encrypted, self._of))

    # -- what the provider said itself ---------------------------------------------------------------------------

    def note_part(self, *, summary: bool) -> None:
        self._in_part = True
        self._is_summary = summary

    def note_text(self, text: str) -> None:
        self._texts.append(text)

    def note_part_done(self, part: bytes) -> None:
        self._parts.append(part)
        self._texts, self._in_part = [], False

    # -- parts ---------------------------------------------------------------------------------------------------

    def _kind(self) -> str:
        return "reasoning_summary_text" if self._is_summary else "reasoning_text"

    def _part_place(self) -> dict[str, bytes]:
        return {"summary_index" if self._is_summary else "content_index": encode(len(self._parts))}

    def _end(self) -> None:
        if not self._in_part:
            return
        text = "".join(self._texts)
        done = "reasoning_summary_part.done" if self._is_summary else "content_part.done"
        kind = b'"summary_text"' if self._is_summary else b'"reasoning_text"'
        told = self.emitter.told(f"response.{done}", self.id, "part", kind)
        part = thinking_part(text, summary=self._is_summary) if told is None else rewrite_text(told, text)
        self._tell(f"{self._kind()}.done", self._part_place() | {"text": encode(text)})
        self._tell(done, self._part_place() | {"part": part})
        self.note_part_done(part)


class OpenCall(OpenItem):
    """A call of a tool."""

    def __init__(
        self, emitter: Emitter, index: int, item_id: str, call_id: str, start: ToolCallStart, *, announced: bool
    ) -> None:
        super().__init__(emitter, index, item_id)
        self.call = start.index
        self._is_custom = start.kind == "custom"
        self._member = text_member(custom=self._is_custom)
        kind = b'"custom_tool_call"' if self._is_custom else b'"function_call"'
        self._item = {"id": encode(item_id), "type": kind, "status": b'"in_progress"', self._member: b'""'}
        self._item |= {"call_id": encode(call_id), "name": encode(start.name)}
        self._texts: list[str] = []
        self.is_told = False
        """The provider has said that nothing is missing."""
        if not announced:
            self._announce(self._item)

    @property
    def text(self) -> str:
        return "".join(self._texts)

    def is_complete(self) -> bool:
        """Whether its arguments are surely all there, as far as can be seen."""
        if self.is_told:
            return True
        return not self._is_custom and _is_object(self.text)

    def add(self, text: str, template: bytes | None) -> None:
        if not text:
            return
        self._texts.append(text)
        self._tell(f"{self._kind()}.delta", {"delta": encode(text)}, template)

    def note_text(self, text: str) -> None:
        self._texts.append(text)

    def close(self, *, cut: bool = False) -> bytes:
        if not self._texts and not self._is_custom and not cut:
            self.add("{}", None)  # no arguments at all are no JSON
        text = encode(self.text)
        self._tell(f"{self._kind()}.done", {self._member: text})
        status = _status(cut=cut or not (self._is_custom or _is_object(self.text)))
        return self._done({"status": status, self._member: text}, join_object(self._item))

    def _kind(self) -> str:
        return "custom_tool_call_input" if self._is_custom else "function_call_arguments"


def _is_object(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False
