"""The request of chat completions, read as strictly as OpenAI reads it; Mistral's differs in the `ChatRules`."""

import re
from collections.abc import Mapping
from typing import Any

import attrs

from tests.providers.refusal import (
    JSON,
    check,
    decoded_base64,
    invalid,
    is_list,
    is_object,
    is_text,
    members,
    object_text,
    within,
)
from tests.providers.scenario import Asked, Result

TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
DATA_URL = re.compile(r"data:([a-z]+/[a-z0-9.+-]+);base64,([A-Za-z0-9+/=]+)")


@attrs.frozen
class ChatRules:
    """Where providers of chat completions differ."""

    fields: frozenset[str]
    roles: Mapping[str, frozenset[str]]  # the members of a message besides its role
    parts: frozenset[str]
    call_id: re.Pattern[str]
    temperature: float
    tool_choices: frozenset[str]
    takes_custom_tools: bool = False


def read_chat(body: JSON, rules: ChatRules) -> Asked:
    """What *body* asks; Refusal when it is against *rules*."""
    members(body, "body", ("model", "messages"), rules.fields)
    within(body, "temperature", 0, rules.temperature)
    within(body, "top_p", 0, 1)
    check(body.get("stream_options") is None or body.get("stream"), "stream_options: only allowed with stream")
    asked = Asked(is_text(body["model"], "model"), stream=bool(body.get("stream")))
    conversation = _Conversation(asked, rules)
    for index, message in enumerate(is_list(body["messages"], "messages")):
        conversation.read(message, f"messages[{index}]")
    conversation.end()
    _read_tools(body, asked, rules)
    _read_format(body.get("response_format"), asked)
    return asked


class _Conversation:
    """Messages one after the other: each result answers a call of the assistant before it."""

    def __init__(self, asked: Asked, rules: ChatRules) -> None:
        self._asked = asked
        self._rules = rules
        self._open: dict[str, str] = {}  # id and name of the calls without result

    def read(self, value: object, place: str) -> None:
        message = is_object(value, place)
        role = message.get("role")
        check(role in self._rules.roles, f"{place}.role: {role!r}")
        members(message, place, ("role",), self._rules.roles[str(role)])
        if role == "tool":
            self._result(message, place)
            return
        self.end()
        if role == "assistant":
            self._assistant(message, place)
        elif role == "user":
            text = self._content(message.get("content"), place)
            self._asked.hear(text)
        else:
            self._asked.system += self._content(message.get("content"), place)

    def end(self) -> None:
        check(not self._open, f"tool calls without a result: {sorted(self._open)}")

    def _result(self, message: JSON, place: str) -> None:
        answered = is_text(message.get("tool_call_id"), f"{place}.tool_call_id")
        check(answered in self._open, f"{place}: no call {answered!r} in the message before")
        text = self._content(message.get("content"), place, only_text=True)
        self._asked.learn(Result(self._open.pop(answered), text))

    def _assistant(self, message: JSON, place: str) -> None:
        calls = message.get("tool_calls")
        content = message.get("content")
        if content is not None and content not in ("", []):
            self._content(content, place, is_assistant=True)
        else:
            check(calls, f"{place}: neither content nor tool_calls")
        for index, call in enumerate(is_list(calls, place) if calls is not None else []):
            where = f"{place}.tool_calls[{index}]"
            is_custom = self._rules.takes_custom_tools and call.get("type") == "custom"
            kind, said = ("custom", "input") if is_custom else ("function", "arguments")
            members(call, where, ("id", kind), ("type", "index"))
            check(self._rules.call_id.fullmatch(str(call["id"])), f"{where}.id: {call['id']!r}")
            called = members(call[kind], f"{where}.{kind}", ("name", said))
            if not is_custom:
                object_text(called[said], f"{where}.{said}")
            check(TOOL_NAME.fullmatch(str(called["name"])), f"{where}.name")
            self._open[call["id"]] = called["name"]

    def _content(self, content: object, place: str, *, only_text: bool = False, is_assistant: bool = False) -> str:
        if isinstance(content, str):
            return is_text(content, f"{place}.content")
        texts = []
        for index, part in enumerate(is_list(content, f"{place}.content")):
            where = f"{place}.content[{index}]"
            kind = is_object(part, where).get("type")
            check(kind in self._rules.parts, f"{where}.type: {kind!r}")
            match kind:
                case "text":
                    members(part, where, ("type", "text"))
                    texts.append(is_text(part["text"], where))
                case "thinking":
                    check(is_assistant, f"{where}: only an assistant thinks")
                    self._asked.signatures = [*self._asked.signatures, _thought(part, where)]
                case "image_url":
                    check(not only_text and not is_assistant, f"{where}: only a user may show an image")
                    self._asked.images = [*self._asked.images, image(part, where)]
                case _:
                    raise invalid(f"{where}: this fake reads no {kind}")
        return "".join(texts)


def _thought(part: JSON, where: str) -> str:
    members(part, where, ("type", "thinking"), ("signature", "closed"))
    pieces = [is_text(piece.get("text"), where) for piece in is_list(part["thinking"], where)]
    return "".join(pieces)


def image(part: JSON, where: str) -> tuple[str, bytes]:
    """Media type and content of the data URL in the part *part*."""
    members(part, where, ("type", "image_url"))
    url = part["image_url"]
    if isinstance(url, dict):
        url = members(url, where, ("url",), ("detail",))["url"]
    return data_url(url, where)


def data_url(url: object, where: str) -> tuple[str, bytes]:
    """Media type and content of the data URL *url*."""
    found = DATA_URL.fullmatch(is_text(url, where))
    if found is None:
        raise invalid(f"{where}: not a data URL: {url!r}")
    return found[1], decoded_base64(found[2], where)


def _read_tools(body: JSON, asked: Asked, rules: ChatRules) -> None:
    tools = body.get("tools")
    names = []
    for index, tool in enumerate(is_list(tools, "tools") if tools is not None else []):
        where = f"tools[{index}]"
        if rules.takes_custom_tools and tool.get("type") == "custom":
            custom = members(
                members(tool, where, ("type", "custom"))["custom"], where, ("name",), ("description", "format")
            )
            _read_grammar(custom.get("format"), where)
            names.append(_tool_name(custom["name"], where))
            continue
        check(members(tool, where, ("type", "function"))["type"] == "function", f"{where}.type")
        function = members(tool["function"], where, ("name",), ("description", "parameters", "strict"))
        names.append(_tool_name(function["name"], where))
        read_schema(function.get("parameters"), bool(function.get("strict")), where)
    asked.tools = names
    choice = body.get("tool_choice")
    if choice is not None:
        check(tools, "tool_choice: only allowed with tools")
        asked.forced_tool = _forced(choice, rules, names)
    check(body.get("parallel_tool_calls") is None or tools, "parallel_tool_calls: only allowed with tools")


def _read_grammar(form: object, where: str) -> None:
    if form is not None:
        grammar = members(members(form, where, ("type", "grammar"))["grammar"], where, ("definition", "syntax"))
        check(grammar["syntax"] in ("lark", "regex"), f"{where}.format.grammar.syntax: {grammar['syntax']!r}")


def _tool_name(name: object, where: str) -> str:
    check(isinstance(name, str) and TOOL_NAME.fullmatch(name), f"{where}.name: {name!r}")
    return str(name)


def _forced(choice: object, rules: ChatRules, names: list[str]) -> str | None:
    if isinstance(choice, str):
        check(choice in rules.tool_choices, f"tool_choice: {choice!r}")
        return names[0] if choice in ("required", "any") else None
    function = members(choice, "tool_choice", ("type", "function"))["function"]
    name = members(function, "tool_choice.function", ("name",))["name"]
    check(name in names, f"tool_choice: no tool {name!r}")
    return str(name)


def _read_format(form: Any, asked: Asked) -> None:
    if form is None or form == {"type": "text"}:
        return
    check(is_object(form, "response_format").get("type") == "json_schema", f"response_format: {form!r}")
    schema = members(form, "response_format", ("type", "json_schema"))["json_schema"]
    # Clients call the schema `schema`; the Python SDK of Mistral has sent its own name for it too.
    members(schema, "response_format.json_schema", ("name", "schema"), ("strict", "description"))
    read_schema(schema["schema"], bool(schema.get("strict")), "response_format.json_schema")
    asked.schema = schema["schema"]


def read_schema(schema: object, strict: bool, where: str) -> None:
    """Check *schema*; in strict mode an object must close its properties and require all of them."""
    if schema is None:
        return
    found = is_object(schema, f"{where}.schema")
    check(found.get("type") == "object", f"{where}.schema: type must be object")
    if strict:
        check(found.get("additionalProperties") is False, f"{where}: 'additionalProperties' must be false")
        check(
            sorted(found.get("required", [])) == sorted(found.get("properties", {})), f"{where}: 'required' misses one"
        )
