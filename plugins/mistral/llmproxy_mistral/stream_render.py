"""Events of another protocol, written as the chunks that Mistral's clients know."""

from __future__ import annotations

from llmproxy_core import Usage
from llmproxy_core.chat import (
    ChatEvent,
    Finish,
    Finished,
    FinishReason,
    RefusalDelta,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
)
from llmproxy_core.wire import Wire, encode, join_array, join_object, with_members
from llmproxy_mistral.translated import short_id
from llmproxy_openai import ChunkRenderer, ChunkWriter, StreamForm, write_call, write_usage


class MistralRenderer(ChunkRenderer):
    """
    Calls go out whole, with the chunk that ends their choice; the last such chunk tells the usage.

    So both are held back until the end. In a stream of Mistral's own nothing is: its own chunks say the end.
    """

    __slots__ = ("_finishes", "_whole_calls")

    def __init__(self, form: StreamForm, *, usage: bool) -> None:
        super().__init__(form, usage=False)
        self._whole_calls: dict[int, dict[int, tuple[ToolCallStart, list[str]]]] = {}
        self._finishes: dict[int, Finish] = {}

    def render(self, event: ChatEvent) -> bytes:
        match event:
            case RefusalDelta():
                return super().render(TextDelta(event.choice, event.text))
            case _ if self.is_native:
                return super().render(event)
            case ToolCallStart():
                self.kinds[event.choice, event.index] = event.kind
                self._whole_calls.setdefault(event.choice, {})[event.index] = (event, [])
            case ToolCallDelta():
                if (call := self._whole_calls.get(event.choice, {}).get(event.index)) is not None:
                    call[1].append(event.arguments)
            case Finished():
                self._finishes[event.choice] = event.finish
            case _:
                return super().render(event)
        return self.before(event.choice, event)

    def end(self, usage: Usage | None) -> bytes:
        if self.start is None or self.is_native:
            return b""
        choices = sorted({*self.choices, *self._finishes, *self._whole_calls}) or [0]
        return b"".join([self._last(choice, usage or Usage(), is_last=choice == choices[-1]) for choice in choices])

    def _last(self, choice: int, usage: Usage, *, is_last: bool) -> bytes:
        """The chunk that ends *choice*; that of the last one has the usage, which clients count on."""
        wire = Wire(self.form.api, own=True)
        calls = []
        for index, (start, arguments) in sorted(self._whole_calls.get(choice, {}).items()):
            call = ToolCall(start.id or short_id(f"{start.name} {index}"), start.name, "".join(arguments) or "{}")
            calls.append(with_members(write_call(call, "delta.tool_calls", wire), {"index": encode(index)}))
        members = {"content": b'""'} | ({"tool_calls": join_array(calls)} if calls else {})
        finish = self.word(choice, self._finishes.get(choice, Finish(FinishReason.STOP)))
        chunk = self.role(choice) + self.citations(choice) + self.chunk(choice, members, finish=finish)
        if not is_last:
            return chunk
        return chunk.removesuffix(b"}\n\n") + b',"usage":' + write_usage(usage) + b"}\n\n"

    def chunk(
        self, choice: int, members: dict[str, bytes], *, logprobs: bytes | None = None, finish: bytes = b"null"
    ) -> bytes:
        said = {"index": encode(choice), "delta": join_object(members)}
        if logprobs is not None:
            said["logprobs"] = logprobs
        return self.head + b"[" + join_object(said | {"finish_reason": finish}) + b"]}\n\n"


class MistralWriter(ChunkWriter):
    """A StreamWriter whose chunks are Mistral's."""

    renderer = MistralRenderer
