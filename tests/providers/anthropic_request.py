"""The request of Anthropic's messages, read as strictly as Anthropic reads it."""

import re
from typing import Any

from tests.providers.refusal import (
    JSON,
    check,
    decoded_base64,
    invalid,
    is_list,
    is_object,
    is_text,
    members,
    names,
    within,
)
from tests.providers.scenario import THOUGHT, Asked, Result

VERSIONS = ("2023-06-01", "2026-10-21")
SIGNATURE = "EqQBCkYIBxgCKkBmYWtlLXNpZ25hdHVyZQ=="
TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
TOOL_ID = re.compile(r"[a-zA-Z0-9_-]+")
FIELDS = names(
    "cache_control container context_management inference_geo max_tokens mcp_servers metadata "
    "output_config service_tier stop_sequences stream system temperature thinking tool_choice tools top_k "
    "top_p"
)
SEARCH = ("max_uses", "allowed_domains", "blocked_domains", "user_location", "cache_control")
NOT_COUNTED = names("max_tokens metadata service_tier stop_sequences stream temperature top_k top_p")


def read_messages(body: JSON, version: str) -> Asked:
    """What *body* asks of `/v1/messages` in API version *version*."""
    members(body, "body", ("model", "messages", "max_tokens"), FIELDS)
    maximum = body["max_tokens"]
    check(isinstance(maximum, int) and maximum >= 1, f"max_tokens: {maximum!r}")
    check("stop_sequences" not in body or all(each.strip() for each in body["stop_sequences"]), "stop_sequences")
    _sampling(body, version)
    asked = _asked(body)
    asked.stream = bool(body.get("stream"))
    _thinking(body, asked, maximum)
    return asked


def read_count(body: JSON) -> Asked:
    """What *body* asks of `/v1/messages/count_tokens`."""
    members(body, "body", ("model", "messages"), FIELDS - NOT_COUNTED)
    return _asked(body)


def _asked(body: JSON) -> Asked:
    asked = Asked(is_text(body["model"], "model"))
    asked.system = _system(body.get("system"))
    conversation = _Conversation(asked)
    for index, message in enumerate(is_list(body["messages"], "messages")):
        conversation.read(message, f"messages.{index}")
    conversation.end()
    _tools(body, asked)
    check(asked.tools or not conversation.had_calls, "Requires tools to be defined: tools=")
    config = members(body.get("output_config") or {}, "output_config", (), ("effort", "format", "task_budget"))
    if config.get("format") is not None:
        form = members(config["format"], "output_config.format", ("type", "schema"))
        check(form["type"] == "json_schema", "output_config.format.type")
        check(form["schema"].get("additionalProperties") is False, "output_config.format.schema: additionalProperties")
        asked.schema = form["schema"]
    return asked


def _sampling(body: JSON, version: str) -> None:
    for name in ("temperature", "top_p", "top_k"):
        if name in body:
            check(version == "2023-06-01", f"{name}: Extra inputs are not permitted")
    within(body, "temperature", 0, 1)
    within(body, "top_p", 0, 1)


def _thinking(body: JSON, asked: Asked, maximum: int) -> None:
    thinking = body.get("thinking")
    if thinking is None:
        return
    kind = is_object(thinking, "thinking").get("type")
    asked.thinks = kind in ("enabled", "adaptive")
    match kind:
        case "enabled":
            members(thinking, "thinking", ("type", "budget_tokens"), ("display",))
            check(1024 <= thinking["budget_tokens"] < maximum, "thinking.budget_tokens: must be less than max_tokens")
            choice = (body.get("tool_choice") or {}).get("type")
            check(choice not in ("any", "tool"), "Thinking may not be enabled when tool_choice forces tool use.")
            check(body.get("temperature", 1) == 1, "`temperature` may only be set to 1 when thinking is enabled")
            check("top_k" not in body, "`top_k` must be unset when thinking is enabled")
        case "adaptive":
            check(not re.search(r"-4-[0-5]\b|-[0-5]-4-|-3-", asked.model), "adaptive thinking is not supported")
        case _:
            members(thinking, "thinking", ("type",))
            check(kind in ("disabled", "between_tools"), f"thinking.type: {kind!r}")
    if has_budget(body):
        for message in _tool_loop(body["messages"]):
            first = is_list(message["content"], "content")[0].get("type")
            check(
                first in ("thinking", "redacted_thinking"),
                f"messages: Expected `thinking` or `redacted_thinking`, but found `{first}`",
            )


def has_budget(body: JSON) -> bool:
    """Whether the model is to think in a budget: then a turn of a loop must begin with its thought; else it may."""
    return bool((body.get("thinking") or {}).get("type") == "enabled")


def _tool_loop(messages: list[JSON]) -> list[JSON]:
    """The assistant messages with calls after the last text of the user."""
    found: list[JSON] = []
    for message in messages:
        blocks = message["content"] if isinstance(message["content"], list) else [{"type": "text"}]
        kinds = {block.get("type") for block in blocks}
        if message["role"] == "user" and "tool_result" not in kinds:
            found = []
        elif message["role"] == "assistant" and "tool_use" in kinds:
            found.append(message)
    return found


def _system(system: object) -> str:
    if system is None:
        return ""
    if isinstance(system, str):
        return system
    blocks = [members(each, "system", ("type", "text"), ("cache_control",)) for each in is_list(system, "system")]
    return "".join(is_text(block["text"], "system") for block in blocks)


class _Conversation:
    """Turns one after the other; messages of the same role are one turn, as the API merges them."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._role = ""
        self._open: dict[str, str] = {}  # id and name of the calls without result
        self.had_calls = False

    def read(self, value: object, place: str) -> None:
        message = members(value, place, ("role", "content"))
        role = message["role"]
        check(role in ("user", "assistant"), f"{place}.role: Input should be 'user' or 'assistant', not {role!r}")
        check(self._role or role == "user", "messages: first message must use the user role")
        if role != self._role and role == "assistant":
            self.end()
        self._role = role
        content = message["content"]
        blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
        texts = []
        for index, block in enumerate(is_list(blocks, f"{place}.content")):
            text = self._block(is_object(block, place), f"{place}.content.{index}", role)
            if text:
                texts.append(text)
        if role == "user" and texts:
            has_results = any(block.get("type") == "tool_result" for block in blocks)
            self._asked.hear("".join(texts), begins=not has_results)

    def end(self) -> None:
        """Refuse the request when a call has no result in the turn after it."""
        check(not self._open, f"`tool_use` ids were found without `tool_result` blocks: {sorted(self._open)}")

    def _block(self, block: JSON, place: str, role: str) -> str | None:
        kind = block.get("type")
        match kind, role:
            case "text", _:
                check(role == "assistant" or not self._open, f"{place}: tool_result blocks must come first")
                members(block, place, ("type", "text"), ("cache_control", "citations"))
                check(str(block["text"]).strip(), "messages: text content blocks must contain non-whitespace text")
                return str(block["text"])
            case "image", "user":
                self._asked.images = [*self._asked.images, _image(block, place)]
            case "tool_result", "user":
                self._result(block, place)
            case "tool_use", "assistant":
                self._call(block, place)
            case "thinking", "assistant":
                members(block, place, ("type", "thinking", "signature"))
                known = block["signature"] == SIGNATURE and block["thinking"] == THOUGHT
                check(known, f"{place}: Invalid `signature` in `thinking` block")
                self._asked.signatures = [*self._asked.signatures, SIGNATURE]
            case _:
                raise invalid(f"{place}: no block {kind!r} in a message of the {role}")
        return None

    def _call(self, block: JSON, place: str) -> None:
        members(block, place, ("type", "id", "name", "input"), ("cache_control", "caller"))
        is_object(block["input"], f"{place}.input")
        check(TOOL_ID.fullmatch(str(block["id"])), f"{place}.id: {block['id']!r}")
        check(TOOL_NAME.fullmatch(str(block["name"])), f"{place}.name: {block['name']!r}")
        self._open[block["id"]] = block["name"]
        self.had_calls = True

    def _result(self, block: JSON, place: str) -> None:
        members(block, place, ("type", "tool_use_id"), ("content", "is_error", "cache_control"))
        answered = block["tool_use_id"]
        check(answered in self._open, f"{place}: unexpected `tool_use_id` {answered!r}: no call in the turn before")
        content = block.get("content", "")
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        images = [_image(part, place) for part in parts if part.get("type") == "image"]
        self._asked.images = [*self._asked.images, *images]
        texts = [part for part in parts if part.get("type") != "image"]
        check(block.get("is_error") in (None, True, False), f"{place}.is_error")
        text = "".join(members(part, place, ("type", "text"), ("cache_control",))["text"] for part in texts)
        self._asked.learn(Result(self._open.pop(answered), text))


def _image(block: JSON, place: str) -> tuple[str, bytes]:
    members(block, place, ("type", "source"), ("cache_control",))
    source = members(block["source"], f"{place}.source", ("type", "media_type", "data"))
    check(source["type"] == "base64", f"{place}.source.type: this fake reads base64 only")
    check(source["media_type"] in ("image/png", "image/jpeg", "image/gif", "image/webp"), f"{place}: media_type")
    return source["media_type"], decoded_base64(source["data"], place)


def _tools(body: JSON, asked: Asked) -> None:
    tools: Any = body.get("tools")
    names = []
    for index, tool in enumerate(tools or []):
        place = f"tools.{index}"
        if is_object(tool, place).get("type") == "web_search_20250305":
            members(tool, place, ("type", "name"), SEARCH)
            continue
        check(is_object(tool, place).get("type", "custom") == "custom", f"{place}.type: {tool.get('type')!r}")
        optional = ("type", "description", "strict", "cache_control", "eager_input_streaming", "input_examples")
        members(tool, place, ("name", "input_schema"), optional)
        check(TOOL_NAME.fullmatch(str(tool["name"])), f"{place}.name: {tool['name']!r}")
        check(is_object(tool["input_schema"], place).get("type") == "object", f"{place}.input_schema.type")
        names.append(tool["name"])
    asked.tools = names
    choice = body.get("tool_choice")
    if choice is None:
        return
    check(tools, "tool_choice may only be specified while providing tools")
    kind = is_object(choice, "tool_choice").get("type")
    check(kind in ("auto", "any", "tool", "none"), f"tool_choice.type: {kind!r}")
    needed = ("type", "name") if kind == "tool" else ("type",)
    members(choice, "tool_choice", needed, ("disable_parallel_tool_use",))
    asked.forced_tool = choice.get("name") or (names[0] if kind == "any" else None)
    check(asked.forced_tool is None or asked.forced_tool in names, f"tool_choice: Tool '{asked.forced_tool}' not found")
