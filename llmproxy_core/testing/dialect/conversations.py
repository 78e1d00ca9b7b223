"""Made requests: conversations that say given words, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any, Literal

import attrs

from llmproxy_core.chat import (
    AudioPart,
    CacheMark,
    ChatRequest,
    DocumentPart,
    ImagePart,
    Message,
    Part,
    ReasoningConfig,
    ReasoningPart,
    ResponseFormat,
    Role,
    Source,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from llmproxy_core.testing.chance import seeded
from llmproxy_core.testing.dialect.declared import DeclaredDialect
from llmproxy_core.testing.dialect.says import INSTEAD, NEEDS, OF_ANSWERS, Says, with_needs

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
PDF = "JVBERi0xLjQKJSVFT0YK"
SOUND = "UklGRiQAAABXQVZFZm10IBAAAAABAAEA"
SIGNATURE = "c2lnbmF0dXJlLW9mLXRoZS1wcm92aWRlcg=="
SCHEMA = b'{"type":"object","properties":{"city":{"type":"string"}},"required":["city"],"additionalProperties":false}'
WORDS = ("Grüße", "aus", "東京", "🚲", "two", "lines:\na", 'said "so"', "back\\slash", "c\u0301", "\u2028", "1.0", "{}")

_FIELDS: Mapping[Says, Mapping[str, Any]] = {
    Says.MAX_OUTPUT_TOKENS: {"max_output_tokens": 4_096},
    Says.TEMPERATURE: {"temperature": 0.5},
    Says.TOP_P: {"top_p": 0.9},
    Says.TOP_K: {"top_k": 40},
    Says.FREQUENCY_PENALTY: {"frequency_penalty": 0.25},
    Says.PRESENCE_PENALTY: {"presence_penalty": -0.25},
    Says.SEED: {"seed": 7},
    Says.STOP: {"stop": ("END", "\n\n#")},
    Says.N: {"n": 2},
    Says.LOGPROBS: {"logprobs": True, "top_logprobs": 3},
    Says.LOGIT_BIAS: {"logit_bias": b'{"50256":-100}'},
    Says.JSON_OBJECT: {"response_format": ResponseFormat("json_object")},
    Says.JSON_SCHEMA: {"response_format": ResponseFormat("json_schema", "answer", SCHEMA)},
    Says.STRICT_SCHEMA: {"response_format": ResponseFormat("json_schema", "answer", SCHEMA, strict=True)},
    Says.EFFORT: {"reasoning": ReasoningConfig("low")},
    Says.THINKING_BUDGET: {"reasoning": ReasoningConfig(budget_tokens=2_048)},
    Says.VERBOSITY: {"verbosity": "low"},
    Says.USER: {"user": "user-1"},
    Says.METADATA: {"metadata": b'{"team":"blue"}'},
    Says.SERVICE_TIER: {"service_tier": "default"},
    Says.STORE: {"store": True},
    Says.CACHE_KEY: {"cache_key": "key-1"},
    Says.SERIAL_TOOLS: {"parallel_tool_calls": False},
    Says.NAMED_TOOL: {"tool_choice": ToolChoice("named", ("weather",))},
    Says.ALLOWED_TOOLS: {"tool_choice": ToolChoice("allowed", ("weather",))},
}

_MEDIA: Mapping[Says, Callable[[], Part]] = {
    Says.IMAGE_URLS: lambda: ImagePart(Source(url="https://example.com/a.png", media_type="image/png")),
    Says.IMAGE_DATA: lambda: ImagePart(Source(data=PIXEL, media_type="image/png")),
    Says.DOCUMENTS: lambda: DocumentPart(Source(data=PDF, media_type="application/pdf"), "report.pdf"),
    Says.AUDIO: lambda: AudioPart(Source(data=SOUND, media_type="audio/wav")),
}


def said(random: Random) -> str:
    """A text of characters that are one to four bytes long, some of which JSON escapes; it ends in a letter."""
    return " ".join(random.choice(WORDS) for _ in range(random.randint(1, 6))) + " z"


class Conversation:
    """Makes one request. *provider* names the dialect that signed what is signed in it."""

    def __init__(self, words: frozenset[Says], random: Random, provider: str) -> None:
        self._words = words
        self._random = random
        self._provider = provider
        self._messages: list[Message] = []

    def request(self, model: str) -> ChatRequest:
        self._open()
        self._answered()
        if Says.SYSTEM_ANYWHERE in self._words:
            self._say("system", TextPart(said(self._random)))
        self._say("user", TextPart(said(self._random)))
        if Says.PREFIX in self._words:
            self._messages.append(Message("assistant", (TextPart(said(self._random)),), prefix=True))
        chat = ChatRequest(model, tuple(self._messages))
        if Says.TOOLS in self._words:
            modes: list[Literal["auto", "none", "required"]] = ["auto", "required"]
            if Says.SERIAL_TOOLS not in self._words:  # of no calls none are parallel
                modes.append("none")
            mode = ToolChoice(self._random.choice(modes))
            chat = attrs.evolve(chat, tools=self._tools(), tool_choice=self._random.choice([None, mode]))
        fields = {name: it for word, values in _FIELDS.items() if word in self._words for name, it in values.items()}
        return attrs.evolve(chat, **fields)

    def _say(self, role: Role, *parts: Part, name: str | None = None) -> None:
        self._messages.append(Message(role, parts, name))

    def _open(self) -> None:
        if Says.SYSTEM in self._words:
            self._say("system", self._text())
        if Says.DEVELOPER in self._words:
            self._say("developer", TextPart(said(self._random)))
        media = [make() for word, make in _MEDIA.items() if word in self._words]
        self._say("user", self._text(), *media, name="ada" if Says.NAMES in self._words else None)

    def _text(self) -> TextPart:
        return TextPart(said(self._random), cache=CacheMark() if Says.CACHE_MARKS in self._words else None)

    def _answered(self) -> None:
        """What the assistant answered before: thoughts, text, calls, and then the results of these."""
        repeats = Says.PAST_REASONING in self._words
        parts: list[Part] = [*thoughts(self._words, self._random, self._provider)] if repeats else []
        calls = self._calls()
        if not calls or self._random.random() < 0.5:
            parts.append(TextPart(said(self._random)))
        self._say("assistant", *parts, *calls)
        for index, call in enumerate(calls):
            is_error = index == 0 and Says.TOOL_ERRORS in self._words
            image = [_MEDIA[Says.IMAGE_DATA]()] if Says.TOOL_IMAGES in self._words else []
            self._say("tool", ToolResult(call.id, (TextPart(said(self._random)), *image), call.name, is_error))
        if calls:
            self._say("assistant", TextPart(said(self._random)))

    def _calls(self) -> list[ToolCall]:
        if Says.TOOLS not in self._words:
            return []
        return calls(self._words, self._random, 2 if Says.PARALLEL_CALLS in self._words else 1)

    def _tools(self) -> tuple[Tool, ...]:
        strict = True if Says.STRICT_TOOLS in self._words else None
        return Tool("weather", "How it will be", SCHEMA, strict), Tool("time", "What time it is", SCHEMA, strict)


def thoughts(words: frozenset[Says], random: Random, provider: str) -> Iterator[ReasoningPart]:
    """The thinking that *words* ask for; what is signed was signed by *provider*."""
    if Says.REASONING not in words:
        return
    part = ReasoningPart(said(random), provider=provider)
    if Says.SIGNATURES in words:
        part = attrs.evolve(part, signature=SIGNATURE)
    if Says.ENCRYPTED in words:
        part = attrs.evolve(part, id="rs_1", encrypted=SIGNATURE)
    yield part
    if Says.REDACTED in words:
        yield ReasoningPart("", redacted=SIGNATURE, provider=provider)


def calls(words: frozenset[Says], random: Random, count: int) -> list[ToolCall]:
    """Calls; their ids are letters and digits, nine of them, which all protocols take."""
    made = []
    for index in range(count):
        arguments = json.dumps({"city": said(random), "days": index}, ensure_ascii=random.random() < 0.5)
        signature = SIGNATURE if Says.CALL_SIGNATURES in words and index == 0 else None
        made.append(ToolCall(f"call{index:05}", ("weather", "time")[index % 2], arguments, signature=signature))
    return made


# -- which conversations -----------------------------------------------------------------------------------------


def chosen(declared: DeclaredDialect, random: Random) -> frozenset[Says]:
    """Some of the declared words that fit together, with the bound on the output that some protocols need."""
    always = declared.says & {Says.MAX_OUTPUT_TOKENS}
    words = frozenset(word for word in sorted(declared.says) if random.random() < 0.35)
    for group in INSTEAD:
        for word in sorted(words & group)[1:]:
            words -= {word}
    words = _repeated(with_needs(words & declared.says), declared) | always
    for apart in declared.never_together:
        if words.issuperset(apart):
            words -= {Says(random.choice(sorted(apart)))}
            words = frozenset(word for word in words if word not in NEEDS or NEEDS[word] in words)
    return words


def _repeated(words: frozenset[Says], declared: DeclaredDialect) -> frozenset[Says]:
    """*words*; thinking is repeated with its signature where there are signatures, else it is worth nothing."""
    if Says.REASONING in words:
        words |= declared.says & {Says.PAST_REASONING}
    return words | (declared.says & {Says.SIGNATURES}) if Says.PAST_REASONING in words else words


def one_by_one(declared: DeclaredDialect) -> Iterator[tuple[str, ChatRequest]]:
    """A conversation for each declared word, and one of plain text."""
    always = declared.says & {Says.MAX_OUTPUT_TOKENS}
    for word in [None, *sorted(declared.says - OF_ANSWERS)]:
        words = always if word is None else with_needs(frozenset({word})) | always
        words = _repeated(words, declared)
        yield str(word or "text"), Conversation(words, seeded(0), declared.dialect.name).request(declared.model)


def some(declared: DeclaredDialect, random: Random) -> ChatRequest:
    """A conversation that says some of the declared words."""
    return Conversation(chosen(declared, random), random, declared.dialect.name).request(declared.model)
