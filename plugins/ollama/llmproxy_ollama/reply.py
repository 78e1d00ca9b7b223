"""Answers: `{"model", "created_at", "message", "done", "done_reason", "prompt_eval_count", "eval_count"}`."""

import math
from collections.abc import Iterable

import attrs
import msgspec

from llmproxy_core import ReplyHead, Usage
from llmproxy_core.chat import (
    AudioPart,
    ChatOrigin,
    ChatReply,
    Choice,
    Finish,
    FinishReason,
    JSONText,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCall,
)
from llmproxy_core.wire import (
    STRING,
    Counts,
    Members,
    Wire,
    decode_object,
    encode,
    garbage,
    join_array,
    join_object,
    made_id,
    with_members,
)
from llmproxy_ollama.apis import CHAT
from llmproxy_ollama.errors import told_error
from llmproxy_ollama.tool_calls import answered_call, one_line, read_call
from llmproxy_ollama.when import read_time, write_time

WIRE = Wire(CHAT.form, own=True, fail=garbage)
_REASONS = {"length": FinishReason.LENGTH}
_LATER_COUNTS = ("prompt_eval_count", "eval_count", "prompt_eval_cached_count")

# -- read ------------------------------------------------------------------------------------------------------


def read_reply(body: bytes) -> ChatReply:
    members = answer(body)
    known, model, created = read_head(members)
    message = members.need_object("message")
    thought, said = message.take("thinking", STRING), message.take("content", STRING)
    calls = [
        read_call(text, f"message.tool_calls[{index}]", WIRE, known, index)
        for index, text in enumerate(message.array("tool_calls"))
    ]
    content: tuple[Part, ...] = (
        *([ReasoningPart(thought)] if thought else []),
        *([TextPart(said)] if said else []),
        *calls,
    )
    finish = read_finish(members, called=bool(calls))
    choice = Choice(0, content, finish, read_logprobs(members.raw("logprobs")))
    usage = read_usage(members)
    members.raw("done")
    reply = ChatReply(known, model, (choice,), usage, created, extra=members.rest())
    origin = ChatOrigin(CHAT.form, {name: bytes(raw) for name, raw in decode_object(body).items()}, reply, body)
    return attrs.evolve(reply, origin=origin)


def scan_reply(body: bytes, *, has_output: bool = True) -> ReplyHead:
    """See `Dialect.scan_reply`; embeddings have no output (*has_output*)."""
    members = answer(body)
    known, model, _ = read_head(members)
    finish = read_finish(members, called=False)
    word = None if finish is None else finish.word
    return ReplyHead(read_usage(members, has_output=has_output), model, () if word is None else (word,), known)


def answer(body: bytes) -> Members:
    """The members of an answer, or of a line of one; the error that stands there instead is raised."""
    members = Members(body, "", garbage)
    if members.peek("error") not in (None, b"null"):
        raise told_error(body)
    return members


def read_head(members: Members) -> tuple[str, str, int | None]:
    """Id, model, time. Ollama gives no id; ours, and its clients pass over it, is made of what tells answers apart."""
    model, created = members.take("model", STRING) or "", members.take("created_at", STRING)
    return members.take("id", STRING) or made_id(model, created, prefix="chat_"), model, read_time(created)


def read_finish(members: Members, *, called: bool) -> Finish | None:
    """Why a line, or an answer, is the last; None when it is not."""
    word = members.take("done_reason", STRING)
    if members.peek("done") != b"true":
        return None
    word = word or "stop"  # old servers do not say it
    reason = _REASONS.get(word, FinishReason.STOP)
    return Finish(FinishReason.TOOL_CALLS if called and reason is FinishReason.STOP else reason, word)


def read_usage(members: Members, *, has_output: bool = True) -> Usage | None:
    """
    The counts in an answer or a last line; None when there is none.

    A count that cannot be true counts as not there, and the usage is then an estimate, as it is where half of it is
    wanting: before 0.33 a prompt that was cached whole is not counted at all.
    """
    values = {name: _value(members.raw(name)) for name in _LATER_COUNTS}
    counts = Counts()
    asked, said = counts.read(values, "prompt_eval_count"), counts.read(values, "eval_count")
    halves = counts.halves(asked, said, None, has_output=has_output)
    if halves is None:
        return None
    cached = counts.within(halves[0], counts.read(values, "prompt_eval_cached_count"))
    return Usage(*halves, cached_input_tokens=cached, source=counts.source)


def _value(text: JSONText | None) -> object:
    """The value of a count, whatever it is; a number out of all range is no number, nor what is nested too deep."""
    try:
        return None if text is None else msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return math.nan


def read_logprobs(text: JSONText | None) -> JSONText | None:
    """The neutral form is OpenAI's, whose `content` is the very list."""
    return None if text is None else join_object({"content": text})


# -- write -----------------------------------------------------------------------------------------------------


def write_reply(reply: ChatReply) -> bytes:
    """Spliced into what it was read from, so that unknown members stay; else anew."""
    now, origin = _members(reply), reply.origin
    if origin is None or origin.api != CHAT.form or not isinstance(origin.value, ChatReply):
        message = join_object({"role": b'"assistant"'} | _message(reply))
        return join_object(with_message(now, message))
    was = _members(origin.value)
    changed = differing(was, now)
    if inner := differing(_message(origin.value), _message(reply)):
        changed["message"] = with_members(origin.members["message"], inner)
    return with_members(origin.text, changed)


def with_message(members: dict[str, bytes], message: bytes) -> dict[str, bytes]:
    """*members* with the message where Ollama has it: before `done`."""
    head = {name: text for name, text in members.items() if name in {"id", "model", "created_at"}}
    return head | {"message": message} | members


def differing(was: dict[str, bytes], now: dict[str, bytes]) -> dict[str, bytes | None]:
    return {name: now.get(name) for name in was | now if now.get(name) != was.get(name)}


def _members(reply: ChatReply) -> dict[str, bytes]:
    choice = _only(reply)
    members = head_members(reply.id or made_id(reply.model, reply.text, prefix="chat_"), reply.model, reply.created)
    members |= {"done": b"true", "done_reason": write_finish(choice.finish)}
    members |= {} if reply.usage is None else usage_members(reply.usage)
    return members | logprobs_members(choice.logprobs)


def _only(reply: ChatReply) -> Choice:
    return reply.choices[0] if reply.choices else Choice(0, (), None)


def _message(reply: ChatReply) -> dict[str, bytes]:
    content = _only(reply).content
    texts = [_said(part) for part in content]
    thoughts = [part.text for part in content if isinstance(part, ReasoningPart)]
    calls = [part for part in content if isinstance(part, ToolCall)]
    return message_members(texts, thoughts, [WIRE.kept(call.raw) or _written(call) for call in calls])


def _said(part: Part) -> str:
    """What *part* says as text: of speech, which has no place here, its transcript."""
    match part:
        case TextPart(text=text) | RefusalPart(text=text) | AudioPart(transcript=str(text)):
            return text
        case _:
            return ""


def _written(call: ToolCall) -> bytes:
    return answered_call(call.id, call.name, call.arguments)


def message_members(texts: Iterable[str], thoughts: Iterable[str], calls: list[bytes]) -> dict[str, bytes]:
    members = {"content": encode("".join(texts))}
    thought = "".join(thoughts)
    members |= {"thinking": encode(thought)} if thought else {}
    return members | ({"tool_calls": join_array(calls)} if calls else {})


def head_members(known: str, model: str, created: int | None) -> dict[str, bytes]:
    members = {"id": encode(known)} if known else {}
    members["model"] = encode(model)
    time = None if created is None else write_time(created)
    return members if time is None else members | {"created_at": encode(time)}


def write_finish(finish: Finish | None) -> bytes:
    if finish is not None and finish.reason is FinishReason.LENGTH:
        return b'"length"'
    return encode(finish.word) if finish is not None and finish.word in {"load", "unload"} else b'"stop"'


def usage_members(usage: Usage) -> dict[str, bytes]:
    members = {"prompt_eval_count": encode(usage.input_tokens), "eval_count": encode(usage.output_tokens)}
    cached = usage.cached_input_tokens
    return members | ({"prompt_eval_cached_count": encode(cached)} if cached else {})


def logprobs_members(text: JSONText | None) -> dict[str, bytes]:
    """`logprobs`; nothing where the provider's are of another kind, as a list."""
    content = decode_object(text).get("content") if text is not None and text.startswith(b"{") else None
    listed = b"" if content is None else bytes(content)
    return {"logprobs": one_line(listed)} if listed.startswith(b"[") else {}
