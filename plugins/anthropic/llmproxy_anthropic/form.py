"""The forms of `POST /messages` and `POST /messages/count_tokens`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmproxy_anthropic.cache_mark import CACHE, take_mark, write_mark
from llmproxy_anthropic.conversation import SYSTEM_ROLES, Conversation
from llmproxy_anthropic.messages_read import perhaps_begun, read_message
from llmproxy_anthropic.messages_write import write_again
from llmproxy_anthropic.output_limit import output_limit
from llmproxy_anthropic.sampling import SAMPLING, UNSAYABLE
from llmproxy_anthropic.system import read_system
from llmproxy_anthropic.system import write_again as write_system_again
from llmproxy_anthropic.system import write_anew as write_system
from llmproxy_anthropic.thinking import read_thinking, write_thinking
from llmproxy_anthropic.tools import read_choice, read_tools, write_tools
from llmproxy_core.chat import ChatRequest, JSONText, Message, TextPart
from llmproxy_core.wire import (
    BOOLEAN,
    INTEGER,
    STRING,
    STRINGS,
    Changes,
    Form,
    Group,
    Members,
    Values,
    Wire,
    encode,
    join_object,
    unsaid,
    value,
    with_members,
)

Before = Mapping[str, JSONText]

_JSON_ONLY = "Answer with one JSON value and nothing else."


# -- messages ------------------------------------------------------------------------------------------------


def _read_messages(members: Members, wire: Wire) -> Values:
    if members.peek("messages") in {None, b"null"}:
        raise wire.fail("messages", "a list of messages")
    system = read_system(members, wire)
    place = members.at("messages")
    spoken = [
        message
        for index, text in enumerate(members.array("messages"))
        for message in read_message(text, f"{place}[{index}]", wire)
    ]
    if spoken:
        spoken[-1] = perhaps_begun(spoken[-1], wire)
    return {"messages": tuple(spoken) if system is None else (system, *spoken)}


def _write_messages(chat: ChatRequest, wire: Wire, before: Before) -> Changes:
    origin = chat.origin.value if before and chat.origin is not None else None
    if isinstance(origin, ChatRequest):
        return _write_again(chat.messages, origin.messages, wire, before)
    return _write_anew(chat, wire)


def _write_again(now: Sequence[Message], was: Sequence[Message], wire: Wire, before: Before) -> Changes:
    """The messages *now* in the place of those that were read: the leading ones of the system stand apart."""
    prompt = was[0] if was and wire.kept(was[0].raw) == before.get("system") else None
    spoken = was if prompt is None else was[1:]
    in_list = {id(message) for message in spoken}
    leading = 0 if prompt is None else 1
    if len(now) != len(was):
        leading = 0
        while leading < len(now) and now[leading].role in SYSTEM_ROLES and id(now[leading]) not in in_list:
            leading += 1
    changes = write_system_again(now[:leading], prompt, before.get("system"), wire)
    return changes | {"messages": write_again(now[leading:], spoken, before["messages"], wire)}


def _write_anew(chat: ChatRequest, wire: Wire) -> Changes:
    """All that the system says as one prompt; where nobody else says anything, its last message is the user's."""
    system = []
    for index, message in enumerate(chat.messages):
        if message.role in SYSTEM_ROLES:
            if message.extra:
                wire.unknown(message.extra, f"messages[{index}]")
            system.append(message)
    spoken: Sequence[Message] = chat.messages
    if system and len(system) == len(chat.messages):
        spoken = (*system[:-1], Message("user", system[-1].content))
        system = system[:-1]
        wire.convert(f"messages[{len(system)}].role", "user")
    elif any(message.role in SYSTEM_ROLES for message in _after_the_first(chat.messages)):
        wire.convert("messages", "merged")
    if chat.response_format is not None and _asks_for_json_in_words(chat):
        wire.convert("response_format", "prompted")
        system = [*system, Message("system", _words(_JSON_ONLY))]
    return {"system": write_system(system, wire), "messages": Conversation(spoken, wire).text()}


def _words(text: str) -> tuple[TextPart, ...]:
    return (TextPart(text),)


def _asks_for_json_in_words(chat: ChatRequest) -> bool:
    """Any JSON at all cannot be asked for otherwise."""
    wanted = chat.response_format
    return wanted is not None and (wanted.kind == "json_object" or (wanted.kind == "json_schema" and not wanted.schema))


def _after_the_first(messages: Sequence[Message]) -> Sequence[Message]:
    """*messages* from the first one that is not the system's."""
    for index, message in enumerate(messages):
        if message.role not in SYSTEM_ROLES:
            return messages[index:]
    return ()


# -- how much, and to whom -------------------------------------------------------------------------------------


def _read_stream(members: Members, _: Wire) -> Values:
    stream = members.take("stream", BOOLEAN) or False
    return {"stream": stream, "wants_usage": stream}


def _write_stream(chat: ChatRequest, _: Wire, before: Before) -> Changes:
    return {"stream": b"true" if chat.stream else (b"false" if "stream" in before else None)}


def _read_limit(members: Members, _: Wire) -> Values:
    return {"max_output_tokens": members.take("max_tokens", INTEGER)}


def _write_limit(chat: ChatRequest, wire: Wire, _: Before) -> Changes:
    if chat.max_output_tokens is None:
        wire.convert("max_output_tokens", "defaulted")
    return {"max_tokens": encode(output_limit(chat, wire))}


def _read_user(members: Members, wire: Wire) -> Values:
    """`metadata`, of which a user's id is known, and nothing else."""
    text = members.peek("metadata") or b"null"
    if text == b"null":
        return {}
    inner = Members(text, members.at("metadata"), wire.fail)
    user = inner.take("user_id", STRING)
    members.raw("metadata")
    members.keep(inner)
    return {"user": user}


def _write_user(chat: ChatRequest, _: Wire, before: Before) -> Changes:
    was = before.get("metadata", b"null")
    user = None if chat.user is None else encode(chat.user)
    if was == b"null":
        return {"metadata": None if user is None else join_object({"user_id": user})}
    return {"metadata": with_members(was, {"user_id": user})}


_TIERS = {"auto": "auto", "default": "standard_only", "standard": "standard_only", "standard_only": "standard_only"}
_READ_TIERS = {"standard_only": "default"}


def _read_tier(members: Members, _: Wire) -> Values:
    word = members.take("service_tier", STRING)
    return {"service_tier": None if word is None else _READ_TIERS.get(word, word)}


def _write_tier(chat: ChatRequest, wire: Wire, _: Before) -> Changes:
    """The two words that are the same; another is advice."""
    tier = chat.service_tier
    word = None if tier is None else _TIERS.get(tier)
    if tier is not None and word is None and wire.translation is not None:
        wire.translation.advise("service_tier")
    return {"service_tier": None if word is None else encode(word)}


def _read_cache(members: Members, _: Wire) -> Values:
    return {"cache": take_mark(members)}


def _write_cache(chat: ChatRequest, _: Wire, __: Before) -> Changes:
    return {"cache_control": write_mark(chat.cache).get(CACHE)}


def _read_stop(members: Members, _: Wire) -> Values:
    sequences: list[str] | None = members.take("stop_sequences", STRINGS)
    return {"stop": tuple(sequences or ())}


def _write_stop(chat: ChatRequest, wire: Wire, before: Before) -> Changes:
    """Nothing but white space is not taken as a sequence."""
    stop = chat.stop if before else tuple(each for each in chat.stop if each.strip())
    if stop != chat.stop:
        wire.refuse("stop", "a stop sequence of white space")
    return {"stop_sequences": encode(stop) if stop else None}


# -- tools, and thinking -----------------------------------------------------------------------------------------


def _read_tools(members: Members, wire: Wire) -> Values:
    return {"tools": read_tools(members, wire)} | read_choice(members, wire)


_PROMPT: Form = (
    value("model", STRING),
    Group(("messages",), _read_messages, _write_messages),
    Group(("cache",), _read_cache, _write_cache, frozenset({CACHE}), says_nothing=True),
    Group(
        ("tools", "tool_choice", "parallel_tool_calls"), _read_tools, write_tools, frozenset({"tools", "tool_choice"})
    ),
    Group(
        ("reasoning", "response_format"),
        read_thinking,
        write_thinking,
        frozenset({"output_config", "output_format", "thinking"}),
        says_nothing=True,
    ),
)

MESSAGES_FORM: Form = (
    *_PROMPT,
    Group(("max_output_tokens",), _read_limit, _write_limit, frozenset({"max_tokens"})),
    Group(("stream", "wants_usage"), _read_stream, _write_stream, frozenset({"stream"})),
    *SAMPLING,
    Group(("stop",), _read_stop, _write_stop, frozenset({"stop_sequences"}), says_nothing=True),
    Group(("user",), _read_user, _write_user, frozenset({"metadata"}), says_nothing=True),
    Group(("service_tier",), _read_tier, _write_tier, frozenset({"service_tier"}), says_nothing=True),
    UNSAYABLE,
)

_UNCOUNTED = (
    "audio",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "max_output_tokens",
    "modalities",
    "n",
    "prediction",
    "presence_penalty",
    "seed",
    "service_tier",
    "stop",
    "store",
    "temperature",
    "top_k",
    "top_logprobs",
    "top_p",
    "user",
    "metadata",
    "cache_key",
    "verbosity",
)
"""What changes nothing about the number of tokens, and is not taken here."""

COUNT_FORM: Form = (*_PROMPT, unsaid(*_UNCOUNTED))
