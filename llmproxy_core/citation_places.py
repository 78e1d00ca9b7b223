"""Where in a streamed text a citation stands, whose source has told it in its own way."""

from __future__ import annotations

from llmproxy_core.chat import ChatEvent, Citation, CitationAdded, End, Failed, TextDelta


class _Text:
    """The text of a choice that runs now; its parts are one to who gets it."""

    __slots__ = ("begin", "length", "waiting")

    def __init__(self) -> None:
        self.begin = 0
        """Where in it the part begins that is being said, in characters."""
        self.length = 0
        self.waiting: list[Citation] = []
        """Citations of all of that part, whose end is not known yet."""


class CitationPlaces:
    """
    Gives the citations of a stream their places in the text that runs when they come, for who knows no parts.

    A provider counts from the beginning of a part, or means the whole of it, and may name the source before it has said
    the text. Such a citation comes when its part is over.
    """

    __slots__ = ("_texts",)

    def __init__(self) -> None:
        self._texts: dict[int, _Text] = {}

    def place(self, events: list[ChatEvent], *, ends_text: bool) -> list[ChatEvent]:
        """*events* of a frame, with which a part of the text *ends*."""
        if len(events) == 1 and type(event := events[0]) is TextDelta:  # nearly all
            self._text(event.choice).length += len(event.text)
            return events
        placed: list[ChatEvent] = []
        for event in events:
            self._add(event, placed)
        if ends_text:
            for choice, text in self._texts.items():
                self._end_part(choice, text, placed)
        return placed

    def _text(self, choice: int) -> _Text:
        if (text := self._texts.get(choice)) is None:
            text = self._texts[choice] = _Text()
        return text

    def _add(self, event: ChatEvent, placed: list[ChatEvent]) -> None:
        choice = getattr(event, "choice", None)
        match event:
            case TextDelta():
                self._text(event.choice).length += len(event.text)
            case CitationAdded(citation=citation) if citation.start is None:
                self._text(event.choice).waiting.append(citation)
                return
            case CitationAdded():
                text = self._text(event.choice)
                event = CitationAdded(event.choice, event.citation.moved(text.begin, text.length - text.begin))
            case End() | Failed():
                for each, text in self._texts.items():
                    self._end_part(each, text, placed)
            case _ if choice in self._texts:
                self._end_part(choice, self._texts.pop(choice), placed)
            case _:
                pass
        placed.append(event)

    @staticmethod
    def _end_part(choice: int, text: _Text, placed: list[ChatEvent]) -> None:
        moved = [it.moved(text.begin, text.length - text.begin) for it in text.waiting]
        placed += [CitationAdded(choice, it) for it in moved]
        text.waiting.clear()
        text.begin = text.length
