"""Messages: `{"role", "content", "thinking", "images", "tool_calls", "tool_name", "tool_call_id"}`."""

from collections.abc import Mapping
from functools import partial

from llmproxy_core import unsupported
from llmproxy_core.chat import (
    ChatRequest,
    ImagePart,
    JSONText,
    Message,
    Part,
    ReasoningPart,
    RefusalPart,
    Role,
    Source,
    TextPart,
    ToolCall,
    ToolResult,
    remember,
)
from llmproxy_core.wire import (
    STRING,
    Changes,
    Members,
    Values,
    Wire,
    decode,
    encode,
    is_plain,
    join_array,
    join_object,
    paired,
    plain_turn,
    with_items,
)
from llmproxy_ollama.apis import NAME
from llmproxy_ollama.tool_calls import Pairing, is_made, read_call, sent_name, write_call

_ROLES: Mapping[str, Role] = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_SPEAKERS: Mapping[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
_KINDS = (("iVBORw0KGgo", "image/png"), ("/9j/", "image/jpeg"), ("R0lGOD", "image/gif"), ("UklGR", "image/webp"))
"""How base64 of images begins: the protocol does not say what they are."""

# -- read ------------------------------------------------------------------------------------------------------


def read_messages(members: Members, wire: Wire) -> Values:
    pairing = Pairing()
    texts = members.array("messages")
    messages = (
        plain_turn(text, _SPEAKERS, wire.api, {}) or _read(text, f"messages[{index}]", wire, pairing)
        for index, text in enumerate(texts)
    )
    return {"messages": tuple(messages)}


def _read(text: bytes, place: str, wire: Wire, pairing: Pairing) -> Message:
    members = Members(text, place, wire.fail)
    role = _ROLES.get(members.need("role", STRING).lower())
    if role is None:
        raise wire.fail(f"{place}.role", "'system', 'user', 'assistant' or 'tool'")
    said = members.take("content", STRING)
    parts: list[Part] = [TextPart(said)] if said else []
    parts += [
        _read_image(image, f"{place}.images[{index}]", wire) for index, image in enumerate(members.array("images"))
    ]
    if role == "tool":
        name, call_id = members.take("tool_name", STRING), members.take("tool_call_id", STRING)
        parts = [ToolResult(pairing.answer(call_id, name), tuple(parts), name)]
    if thought := members.take("thinking", STRING):
        parts.insert(0, ReasoningPart(thought))
    for index, call_text in enumerate(members.array("tool_calls")):
        call = read_call(call_text, f"{place}.tool_calls[{index}]", wire, pairing.made_id(None))
        pairing.begin(call)
        parts.append(call)
    return remember(Message(role, tuple(parts), extra=members.rest()), wire.api, text)


def _read_image(text: bytes, place: str, wire: Wire) -> ImagePart:
    data = decode(STRING, text, place, wire.fail)
    kind = next((kind for start, kind in _KINDS if data.startswith(start)), "image/jpeg")
    return remember(ImagePart(Source(data=data, media_type=kind)), wire.api, text)


# -- write -----------------------------------------------------------------------------------------------------


def write_messages(chat: ChatRequest, wire: Wire, before: Mapping[str, JSONText]) -> Changes:
    calls = {} if wire.own else paired(chat.messages, "perhaps")
    written: list[bytes] = []
    for index, message in enumerate(chat.messages):
        if (text := _write_plain(message, wire)) is not None:
            written.append(text)
            continue
        made = wire.attempt(partial(_write, message, f"messages[{index}]", wire, calls))
        written += made or []  # None: refused, and such things are left out
    return {"messages": with_items(before["messages"], written) if "messages" in before else join_array(written)}


def _write_plain(message: Message, wire: Wire) -> bytes | None:
    """*message*, which has no bytes of this wire form, when it is one text and nothing else."""
    if not is_plain(message) or wire.kept(message.raw) is not None:
        return None
    role = "system" if message.role == "developer" else message.role
    return b'{"role":"%b","content":%b}' % (role.encode(), encode(message.text))


def _write(message: Message, place: str, wire: Wire, calls: Mapping[str, ToolCall]) -> list[bytes]:
    """The messages for *message*: one, or one for each result of a tool."""
    if (kept := wire.kept(message.raw)) is not None:
        return [kept]
    if message.prefix:
        raise unsupported(f"{place}.prefix", "a turn that is to be continued")
    results = [
        (f"{place}.content[{index}]", part)
        for index, part in enumerate(message.content)
        if isinstance(part, ToolResult)
    ]
    others: tuple[Part, ...] = tuple(part for part in message.content if not isinstance(part, ToolResult))
    extra = wire.unknown(message.extra, place)
    written = [_write_result(part, at, wire, calls.get(at), extra) for at, part in results]
    if others or not results:
        role = "system" if message.role == "developer" else message.role
        if role == "system" and not wire.own:
            others = _texts(others, place, wire)
        written.append(join_object({"role": encode(role)} | _write_parts(others, place, wire) | extra))
    return written


def _texts(parts: tuple[Part, ...], place: str, wire: Wire) -> tuple[Part, ...]:
    """*parts* of a system prompt, whose images Ollama does not show to the model in a longer conversation."""
    for index, part in enumerate(parts):
        if isinstance(part, ImagePart):
            wire.refuse(f"{place}.content[{index}]", "an image in a system prompt")
    return tuple(part for part in parts if not isinstance(part, ImagePart))


def _write_result(part: ToolResult, place: str, wire: Wire, call: ToolCall | None, extra: dict[str, bytes]) -> bytes:
    members = {"role": b'"tool"'} | _write_parts(part.content, place, wire)
    if name := part.name if call is None else sent_name(call):
        members["tool_name"] = encode(name)
    if part.call_id and not (wire.own and is_made(part.call_id)):
        members["tool_call_id"] = encode(part.call_id)
    return join_object(members | wire.unknown(part.extra, place) | extra)


def _write_parts(parts: tuple[Part, ...], place: str, wire: Wire) -> dict[str, bytes]:
    texts, thoughts = [], []
    images: list[bytes] = []
    calls: list[bytes] = []
    for index, part in enumerate(parts):
        where = f"{place}.content[{index}]"
        match part:
            case TextPart() | RefusalPart():
                wire.unknown(part.extra, where)  # refuses what only another protocol knows
                if images and part.text:
                    wire.convert(place, "reordered")  # images stand behind the text
                texts.append(part.text)
            case ReasoningPart():
                if wire.kept(part.raw) or part.provider in (None, NAME):  # another's is of no use here
                    thoughts.append(part.text)
            case ImagePart():
                images += [made] if (made := wire.attempt(partial(_write_image, part, where, wire))) else []
            case ToolCall():
                calls += [made] if (made := wire.attempt(partial(write_call, part, where, wire))) else []
            case _:
                wire.refuse(where, f"a {type(part).__name__}")
    members = {"content": encode("".join(texts))}
    members |= {"thinking": encode("".join(thoughts))} if any(thoughts) else {}
    members |= {"images": join_array(images)} if images else {}
    return members | ({"tool_calls": join_array(calls)} if calls else {})


def _write_image(part: ImagePart, place: str, wire: Wire) -> bytes:
    if (kept := wire.kept(part.raw)) is not None:
        return kept
    if part.source.data is None:
        raise unsupported(place, "an image that is not sent as data")
    wire.unknown(part.extra, place)
    return encode(part.source.data)
