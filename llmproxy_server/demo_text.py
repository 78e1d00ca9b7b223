"""What the demo LLM answers: a pure function of the request."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from llmproxy_core.chat import (
    ChatReply,
    ChatRequest,
    Choice,
    Finish,
    FinishReason,
    TextPart,
    Tool,
    ToolCall,
    ToolResult,
)
from llmproxy_core.errors import BadRequest, Unsupported
from llmproxy_core.usage import Usage
from llmproxy_server import demo_json
from llmproxy_server.demo_tokens import BYTES_PER_TOKEN, prompt_tokens, tokens

MAX_CHOICES = 128
_QUOTED = 200  # characters of a question or a tool's result
_PHRASE = 60  # characters of it in made-up JSON

_OPENINGS = (
    "You asked “{question}”, and the demo answers.",
    "The question was “{question}”, if it was read right.",
    "To “{question}” the demo has this to say.",
)
_COUNTS = (
    "It has {words}; the longest is “{longest}”.",
    "Counted out it makes {words}, and none is longer than “{longest}”.",
    "Of its {words}, “{longest}” is the longest.",
)
_SOURCES = (
    "No model thought about it: this is the demo that comes with llmproxy, and it runs inside the proxy.",
    "This answer was put together inside the proxy, by the demo of llmproxy; no model was asked.",
)
_REPEATS = (
    "Ask the same again, and you get the same again, word for word.",
    "The same question always has this same answer.",
)
_ENDINGS = (
    "Set a provider's key to talk to a real model.",
    "For a real model, give the proxy the key of a provider.",
)


def answer(chat: ChatRequest, *, model: str, created: int) -> ChatReply:
    """
    The whole answer; equal requests have equal answers, ids included. *created* is seconds since the epoch.

    BadRequest and Unsupported as a provider would refuse: no messages, a bound out of range, a forced tool that is
    not there.
    """
    _check(chat)
    mark = hashlib.sha256("\0".join(_texts(chat)).encode(errors="replace")).hexdigest()
    choices = tuple(_choice(chat, index, mark) for index in range(chat.n or 1))
    output_tokens = sum(tokens(_said(choice)) for choice in choices)
    return ChatReply(f"demo-{mark[:24]}", model, choices, Usage(prompt_tokens(chat), output_tokens), created)


def _check(chat: ChatRequest) -> None:
    if not chat.messages:
        raise BadRequest("There is no message to answer", param="messages")
    if chat.n is not None and not 1 <= chat.n <= MAX_CHOICES:
        raise BadRequest(f"The demo gives 1 to {MAX_CHOICES} choices, not {chat.n}", param="n")
    if chat.max_output_tokens is not None and chat.max_output_tokens < 1:
        raise BadRequest("An answer must be allowed at least 1 token", param="max_tokens")


def _texts(chat: ChatRequest) -> Iterator[str]:
    """What tells one question from another: the whole conversation, so that ids differ from turn to turn."""
    for message in chat.messages:
        yield message.role
        for part in message.content:
            if isinstance(part, TextPart):
                yield part.text
            elif isinstance(part, ToolCall):
                yield part.name + part.arguments
            elif isinstance(part, ToolResult):
                yield part.call_id + _result([part])


# -- one choice ----------------------------------------------------------------------------------------------------


def _choice(chat: ChatRequest, index: int, mark: str) -> Choice:
    results = [part for part in chat.messages[-1].content if isinstance(part, ToolResult)]
    question = _question(chat)
    forced = None if results else _forced(chat)
    if forced is not None:
        return _call(chat, forced, index, mark, question)
    wanted = chat.response_format
    if wanted is not None and wanted.kind != "text":
        schema = wanted.schema if wanted.kind == "json_schema" else None
        text = demo_json.document(schema, _short(_result(results) or question, _PHRASE))
    elif results:
        text = f"The tool answered: “{_short(_result(results), _QUOTED)}”. That is all the demo has to say about it."
    else:
        text = _sentences(question, index)
    return _bounded(chat, index, text)


def _sentences(question: str, index: int) -> str:
    """Five sentences about *question*; which ones, its own digest and the choice's index decide."""
    words = question.split()
    if not words:
        return f"You said nothing that could be answered in words. {_SOURCES[index % 2]} {_ENDINGS[index % 2]}"
    digest = hashlib.sha256(f"{index} {question}".encode(errors="replace")).digest()
    kinds = (_OPENINGS, _COUNTS, _SOURCES, _REPEATS, _ENDINGS)
    longest = max(words, key=len)
    facts = {
        "question": _short(question, _QUOTED),
        "words": "1 word" if len(words) == 1 else f"{len(words)} words",
        "longest": _short(longest.strip(".,:;!?()\"'“”") or longest, _PHRASE),
    }
    return " ".join(kind[byte % len(kind)].format(**facts) for kind, byte in zip(kinds, digest, strict=False))


def _bounded(chat: ChatRequest, index: int, text: str) -> Choice:
    """*text* up to the first stop sequence, or to the bound of tokens if that comes first."""
    met = min((stop for stop in chat.stop if stop and stop in text), key=text.find, default=None)
    finish = Finish(FinishReason.STOP, stop_sequence=met)
    if met is not None:
        text = text[: text.find(met)]
    kept = _cut(text, chat.max_output_tokens)
    if len(kept) < len(text):
        finish = Finish(FinishReason.LENGTH)
    return Choice(index, (TextPart(kept),) if kept else (), finish)


def _call(chat: ChatRequest, tool: Tool, index: int, mark: str, question: str) -> Choice:
    phrase = _short(question, _PHRASE) or "demo"
    text = phrase if tool.kind == "custom" else demo_json.arguments(tool.parameters, phrase)
    kept = _cut(text, chat.max_output_tokens)
    call_id = "" if tool.kind == "legacy" else f"call_{hashlib.sha256(f'{mark}{index}'.encode()).hexdigest()[:24]}"
    # OpenAI ends a call of the one function it was told to call with `stop`, others with `tool_calls`.
    named = chat.tool_choice is not None and len(chat.tool_choice.names) == 1
    reason = FinishReason.STOP if named else FinishReason.TOOL_CALLS
    if len(kept) < len(text):
        reason = FinishReason.LENGTH
    return Choice(index, (ToolCall(call_id, tool.name, kept, tool.kind),), Finish(reason))


def _forced(chat: ChatRequest) -> Tool | None:
    """The tool that must be called; None when the model is free not to."""
    choice = chat.tool_choice
    if choice is None or choice.mode not in {"required", "named"}:
        return None
    tools = [tool for tool in chat.tools if isinstance(tool, Tool)]
    for tool in tools:
        if not choice.names or tool.name in choice.names:
            return tool
    if chat.tools and not choice.names:
        raise Unsupported("The demo can call the caller's own tools only, and there is none", param="tools")
    missing = f" named {choice.names[0]!r}" if choice.names else ""
    raise BadRequest(f"A tool must be called, but the request has none{missing}", param="tool_choice")


def _question(chat: ChatRequest) -> str:
    """The last text of the user, white space evened out."""
    texts = (message.text for message in reversed(chat.messages) if message.role == "user")
    return " ".join(next((text for text in texts if text.strip()), "").split())


def _result(results: Iterable[ToolResult]) -> str:
    texts = (part.text for result in results for part in result.content if isinstance(part, TextPart))
    return " ".join(" ".join(texts).split())


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _cut(text: str, max_tokens: int | None) -> str:
    """The longest beginning of *text* within *max_tokens*, no character broken."""
    if max_tokens is None:
        return text
    return text.encode(errors="replace")[: max_tokens * BYTES_PER_TOKEN].decode(errors="ignore")


def _said(choice: Choice) -> str:
    calls = [part.arguments for part in choice.content if isinstance(part, ToolCall)]
    return choice.text + "".join(calls)
