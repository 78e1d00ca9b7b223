"""The order of neutral events, as every reader must give them and every writer may count on: a state machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from llmproxy_core.chat import (
    ChatEvent,
    End,
    Failed,
    Finished,
    Ping,
    Start,
    ToolCallDelta,
    ToolCallStart,
    UsageReported,
)
from llmproxy_core.usage import Usage


class EventRules:
    """
    Fed all events of one stream; *broken* says what was wrong, each as a sentence.

    A Start comes first (pings may come before it), once; a choice ends once; its calls are counted from 0 without gaps,
    each begins before its arguments come, with a name; nothing follows an End or a Failed, so usage is told before.
    """

    def __init__(self) -> None:
        self.broken: list[str] = []
        self.is_complete = False
        self.failed: Failed | None = None
        self._has_begun = False
        self._finished: set[int] = set()
        self._calls: Counter[int] = Counter()

    def feed(self, events: Iterable[ChatEvent]) -> None:
        for event in events:
            self._feed(event)

    def end(self, *, whole: bool) -> None:
        """The stream is over; *whole*: it is one that was not broken off."""
        if whole and not self.is_complete and self.failed is None:
            self.broken.append("the stream has no End: the reader gives one for the protocol's terminal event")
        if self.is_complete and not self._has_begun:
            self.broken.append("the stream has no Start")

    def _feed(self, event: ChatEvent) -> None:
        name = type(event).__name__
        if self.is_complete or self.failed is not None:
            self.broken.append(f"{name} comes after the {'End' if self.is_complete else 'Failed'}: nothing follows it")
            return
        if not self._has_begun and not isinstance(event, Start | Ping | Failed):
            self.broken.append(f"{name} comes before the Start")
            self._has_begun = True  # said once
        if isinstance(event, Start):
            if self._has_begun:
                self.broken.append("a second Start: only the first event of a stream gives one")
            self._has_begun = True
        self._note(event)

    def _note(self, event: ChatEvent) -> None:
        match event:
            case Finished(choice=choice):
                if choice in self._finished:
                    self.broken.append(f"choice {choice} has a second Finished")
                self._finished.add(choice)
            case ToolCallStart():
                self._begin_call(event)
            case ToolCallDelta(choice=choice, index=index):
                if not 0 <= index < self._calls[choice]:
                    self.broken.append(f"arguments of call {index} of choice {choice} come before its ToolCallStart")
            case UsageReported(usage=usage):
                self._count(usage)
            case End():
                self.is_complete = True
            case Failed():
                self.failed = event
            case _:
                pass

    def _count(self, usage: Usage) -> None:
        if usage.cached_input_tokens + usage.cache_write_tokens > usage.input_tokens:
            self.broken.append("more input tokens were cached than there are: input_tokens includes those")
        if usage.reasoning_tokens > usage.output_tokens:
            self.broken.append("more tokens were thought than given out: output_tokens includes those")

    def _begin_call(self, event: ToolCallStart) -> None:
        expected = self._calls[event.choice]
        if event.index != expected:
            self.broken.append(
                f"a call of choice {event.choice} begins with index {event.index} instead of {expected}: count them in "
                "the order of their beginnings"
            )
        if not event.name:
            self.broken.append("a ToolCallStart without a name: wait until the name is known")
        if not event.id and event.kind != "legacy":
            self.broken.append("a ToolCallStart without an id: invent one (`llmproxy_core.wire.made_id`)")
        self._calls[event.choice] = max(expected, event.index + 1)
