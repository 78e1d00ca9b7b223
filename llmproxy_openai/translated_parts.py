"""The parts of another protocol's conversation, as far as OpenAI's protocol can say them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping

from llmproxy_core.chat import (
    AudioPart,
    DocumentPart,
    ImagePart,
    OpaquePart,
    Part,
    ReasoningPart,
    RefusalPart,
    Source,
    TextPart,
    ToolCall,
    VideoPart,
)
from llmproxy_core.wire import Wire, made_id, text_tool
from llmproxy_openai.model_family import ModelFamily

_AUDIO = {"audio/mpeg": "audio/mp3", "audio/x-wav": "audio/wav", "audio/wave": "audio/wav"}
WORDS: Mapping[type, str] = {
    ImagePart: "an image",
    DocumentPart: "a document",
    AudioPart: "sound",
    VideoPart: "a video",
}
"""What parts are called in errors."""
_LONGEST_ID = 40
"""Characters of a call's id; a longer one is an error at OpenAI."""


class PartTranslator:
    """
    Each method gives what can be said of one part, or None for what is left out; `wire` is told, and may refuse.

    A variant of the protocol overrides what it says otherwise.
    """

    def __init__(self, wire: Wire, family: ModelFamily, *, shares_files: bool = False) -> None:
        """*shares_files*: the ids of files that the request names are known to the provider that is asked."""
        self.wire = wire
        self.dialect = wire.api.partition(".")[0]
        self.family = family
        self._shares_files = shares_files

    # -- what people say -------------------------------------------------------------------------------------------

    def all(self, parts: Iterable[tuple[str, Part]]) -> tuple[Part, ...]:
        """What can be said of *parts*, each given with its place."""
        return tuple(said for place, part in parts if (said := self.one(part, place)) is not None)

    def system(self, parts: Iterable[tuple[str, Part]]) -> tuple[Part, ...]:
        """What can be said of *parts* of a system prompt: texts."""
        said: list[Part] = []
        for place, part in parts:
            if isinstance(part, ImagePart | AudioPart | VideoPart) or (
                isinstance(part, DocumentPart) and part.source.text is None
            ):
                self.wire.refuse(place, f"{WORDS[type(part)]} in a system prompt")
            elif (text := self.one(part, place)) is not None:
                said.append(text)
        return tuple(said)

    def one(self, part: Part, place: str) -> Part | None:
        """*part* of a user's turn."""
        if not isinstance(part, OpaquePart):
            self.refuse_unknown(part, place)
        match part:
            case TextPart(citations=(), cache=None, signature=None, extra=extra) if not extra:
                return part
            case TextPart():
                return TextPart(part.text)
            case ImagePart():
                return self.image(part, place)
            case DocumentPart():
                return self.document(part, place)
            case AudioPart():
                return self.audio(part, place)
            case RefusalPart():
                return TextPart(part.text)
            case OpaquePart(kind=kind):
                self.wire.refuse(place, f"a part of type {kind!r} of another protocol")
            case _:
                self.wire.refuse(place, f"a {type(part).__name__} here")
        return None

    def image(self, part: ImagePart, place: str) -> Part | None:
        """An image has a URL, or is one."""
        if part.source.url is None and part.source.data is None:
            self.wire.refuse(place, "an image by file id")
            return None
        return ImagePart(part.source, part.detail if part.detail in {"low", "high", "auto"} else None)

    def document(self, part: DocumentPart, place: str) -> Part | None:
        """A document that is text becomes text; a PDF goes as it is."""
        if part.context is not None:
            self.wire.refuse(f"{place}.context", "the context of a document")
        if part.citations:
            self.wire.refuse(f"{place}.citations", "citations of a document")
        return self._flat(part, place) or self.file(part, place)

    def _flat(self, part: DocumentPart, place: str) -> TextPart | None:
        """A document that is text, as text."""
        source = part.source
        text = source.text if source.data is None else _text_of(source)
        if text is None:
            return None
        self.wire.convert(place, "flattened")
        return TextPart(f"{part.title}\n\n{text}" if part.title else text)

    def file(self, part: DocumentPart, place: str) -> Part | None:
        """A document that is no text."""
        source = part.source
        if source.data is not None:
            return DocumentPart(source, part.title or "document.pdf")
        if source.file_id is not None and self._shares_files:
            return DocumentPart(Source(file_id=source.file_id))
        self.wire.refuse(place, "a document by URL" if source.url is not None else "a document by another's file id")
        return None

    def audio(self, part: AudioPart, place: str) -> Part | None:
        """Sound in one of the two formats."""
        kind = (part.source.media_type or "audio/wav").partition(";")[0]
        kind = _AUDIO.get(kind, kind)
        if part.source.data is None or kind not in {"audio/wav", "audio/mp3"}:
            self.wire.refuse(place, "audio by reference" if part.source.data is None else f"audio of type {kind!r}")
            return None
        return AudioPart(Source(data=part.source.data, media_type=kind))

    # -- what the model said ---------------------------------------------------------------------------------------

    def answered(self, part: Part, place: str) -> Part | None:
        """*part* of an assistant's turn."""
        if not isinstance(part, OpaquePart | ReasoningPart):
            self.refuse_unknown(part, place)
        match part:
            case TextPart(citations=(), cache=None, signature=None, extra=extra) if not extra:
                return part
            case TextPart():
                return TextPart(part.text)
            case RefusalPart():
                return RefusalPart(part.text)
            case ToolCall():
                return self.call(part, place)
            case ReasoningPart():
                return self.thinking(part)
            case OpaquePart(kind=kind):
                self.wire.refuse(place, f"a part of type {kind!r} of another protocol")
            case DocumentPart() if (text := self._flat(part, place)) is not None:
                return text
            case _:
                self.wire.refuse(place, f"{WORDS.get(type(part), type(part).__name__)} in an assistant's turn")
        return None

    def thinking(self, part: ReasoningPart) -> Part | None:
        """Only what this very protocol's provider thought goes back."""
        if part.provider != self.dialect or not part.text:
            return None
        return ReasoningPart(part.text, provider=part.provider, member=part.member or "reasoning_content")

    def call(self, part: ToolCall, place: str) -> Part | None:
        """A call; one without arguments has an empty object of them."""
        signature = part.signature if self.family.is_google else None
        if part.kind != "custom":
            return ToolCall(self.call_id(part.id), part.name, part.arguments or "{}", part.kind, signature=signature)
        if self.family.takes_custom_tools:
            return ToolCall(self.call_id(part.id), part.name, part.arguments, "custom", signature=signature)
        arguments = text_tool.write_text(part.arguments).decode()
        return ToolCall(self.call_id(part.id), text_tool.sent_name(part.name), arguments, signature=signature)

    def call_id(self, call_id: str) -> str:
        """The same for a call and its result."""
        return call_id if len(call_id) <= _LONGEST_ID else made_id(call_id)

    # -- what nobody here knows ------------------------------------------------------------------------------------

    def refuse_unknown(self, node: object, place: str) -> None:
        """Members of *node* that only another protocol knows."""
        self.wire.refuse_unknown(getattr(node, "extra", {}), place)


def _text_of(source: Source) -> str | None:
    """The text that the data of *source* is; None when it is none."""
    if source.media_type is None or not source.media_type.startswith("text/"):
        return None
    try:
        return base64.b64decode(source.data or "").decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
