"""The request of OpenAI's responses, read as strictly as OpenAI reads it."""

import re

from tests.providers.chat_request import TOOL_NAME, data_url, read_schema
from tests.providers.refusal import (
    JSON,
    check,
    invalid,
    is_list,
    is_object,
    is_text,
    members,
    names,
    object_text,
    within,
)
from tests.providers.scenario import Asked, Result

ENCRYPTED = "gAAAAABfake-encrypted-reasoning"
CALL_ID = re.compile(r"call_[A-Za-z0-9]{1,59}")
FIELDS = names(
    "background client_metadata context_management conversation include input instructions max_output_tokens "
    "max_tool_calls metadata parallel_tool_calls previous_response_id prompt prompt_cache_key "
    "prompt_cache_retention reasoning safety_identifier service_tier store stream stream_options "
    "temperature text tool_choice tools top_logprobs top_p truncation user"
)


def read_responses(body: JSON) -> Asked:
    """What *body* asks."""
    members(body, "body", ("model", "input"), FIELDS)
    within(body, "temperature", 0, 2)
    within(body, "top_p", 0, 1)
    within(body, "max_output_tokens", 16, 10**6)
    check(body.get("stream_options") is None or body.get("stream"), "stream_options: only allowed with stream")
    asked = Asked(is_text(body["model"], "model"), stream=bool(body.get("stream")))
    asked.system = body.get("instructions") or ""
    if isinstance(body["input"], str):
        asked.text = is_text(body["input"], "input")
    else:
        conversation = _Conversation(asked)
        for index, item in enumerate(is_list(body["input"], "input")):
            conversation.read(is_object(item, "input"), f"input[{index}]")
        conversation.end()
    _tools(body, asked)
    text = members(body.get("text") or {}, "text", (), ("format", "verbosity"))
    form = text.get("format") or {"type": "text"}
    if form.get("type") != "text":
        check(form.get("type") == "json_schema", f"text.format.type: {form.get('type')!r}")
        members(form, "text.format", ("type", "name", "schema"), ("strict", "description"))
        read_schema(form["schema"], bool(form.get("strict")), "text.format")
        asked.schema = form["schema"]
    reasoning = members(body.get("reasoning") or {}, "reasoning", (), ("effort", "summary", "generate_summary"))
    asked.shows = bool(reasoning.get("summary"))
    asked.thinks = asked.shows or reasoning.get("effort") not in (None, "none")
    return asked


def check_reasoning(items: object) -> None:
    """Refuse a call that is named as an item of an answer whose reasoning is left out; without an id it is nobody's."""
    reasoned = False
    for item in items if isinstance(items, list) else []:
        if item.get("role") == "user":
            reasoned = False
        reasoned |= item.get("type") == "reasoning"
        if item.get("type") == "function_call" and item.get("id") is not None:
            message = f"Item '{item['id']}' of type 'function_call' was provided without its required 'reasoning' item"
            check(reasoned, message)


class _Conversation:
    """Items one after the other: each output answers a call before it, by its call_id."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._open: dict[str, str] = {}

    def read(self, item: JSON, place: str) -> None:
        match item.get("type", "message"):
            case "message":
                self._message(item, place)
            case "function_call":
                members(item, place, ("type", "call_id", "name", "arguments"), ("id", "status", "namespace", "caller"))
                check(CALL_ID.fullmatch(str(item["call_id"])), f"{place}.call_id: {item['call_id']!r}")
                check(str(item.get("id") or "fc_").startswith("fc_"), f"{place}.id: {item.get('id')!r}")
                object_text(item["arguments"], place)
                self._open[item["call_id"]] = item["name"]
            case "custom_tool_call":
                members(item, place, ("type", "call_id", "name", "input"), ("id", "status", "namespace", "caller"))
                check(CALL_ID.fullmatch(str(item["call_id"])), f"{place}.call_id: {item['call_id']!r}")
                check(str(item.get("id") or "ctc_").startswith("ctc_"), f"{place}.id: {item.get('id')!r}")
                self._open[item["call_id"]] = item["name"]
            case "function_call_output" | "custom_tool_call_output":
                self._output(item, place)
            case "reasoning":
                members(item, place, ("type", "summary"), ("id", "encrypted_content", "content", "status"))
                check(str(item.get("id") or "rs_").startswith("rs_"), f"{place}.id: {item.get('id')!r}")
                check(item.get("encrypted_content") == ENCRYPTED, "The encrypted content could not be verified.")
                self._asked.signatures = [*self._asked.signatures, ENCRYPTED]
            case other:
                raise invalid(f"{place}.type: this fake reads no {other!r}")

    def end(self) -> None:
        """Refuse the request when a call has no output."""
        check(not self._open, f"No tool output found for function call {sorted(self._open)}.")

    def _output(self, item: JSON, place: str) -> None:
        members(item, place, ("type", "call_id", "output"), ("id", "status"))
        answered = item["call_id"]
        check(answered in self._open, f"No tool call found for function call output with call_id {answered}.")
        output = item["output"]
        if not isinstance(output, str):
            parts = is_list(output, place)
            for part in parts:
                if part.get("type") == "input_image":
                    members(part, place, ("type", "image_url"), ("detail",))
                    self._asked.images = [*self._asked.images, data_url(part["image_url"], place)]
                else:
                    check(part.get("type") == "input_text", f"{place}.output: no {part.get('type')!r}")
            output = "".join(part.get("text", "") for part in parts)
        self._asked.learn(Result(self._open.pop(answered), output))

    def _message(self, item: JSON, place: str) -> None:
        members(item, place, ("role", "content"), ("type", "id", "status", "phase"))
        role = item["role"]
        check(role in ("user", "assistant", "system", "developer"), f"{place}.role: {role!r}")
        kind = "output_text" if role == "assistant" else "input_text"
        content = item["content"]
        if isinstance(content, str):
            is_text(content, place)
            parts = [{"type": kind, "text": content}]
        else:
            parts = is_list(content, place)
        texts = []
        for part in parts:
            if is_object(part, place).get("type") == "input_image" and role == "user":
                members(part, place, ("type", "image_url"), ("detail",))
                self._asked.images = [*self._asked.images, data_url(part["image_url"], place)]
                continue
            check(part.get("type") == kind, f"{place}: Invalid value: {part.get('type')!r}. Supported: {kind!r}")
            members(part, place, ("type", "text"), ("annotations", "logprobs") if kind == "output_text" else ())
            texts.append(is_text(part["text"], place))
        if role == "user":
            self._asked.hear("".join(texts))
        elif role != "assistant":
            self._asked.system += "".join(texts)


def _tools(body: JSON, asked: Asked) -> None:
    names = []
    for index, tool in enumerate(body.get("tools") or []):
        place = f"tools[{index}]"
        if tool.get("type") == "web_search":
            members(tool, place, ("type",), ("external_web_access", "filters", "user_location", "search_context_size"))
            continue
        if tool.get("type") == "custom":
            members(tool, place, ("type", "name"), ("description", "format"))
            members(tool.get("format") or {"type": "text"}, place, ("type",), ("syntax", "definition"))
            names.append(tool["name"])
            continue
        check(tool.get("type") == "function", f"{place}.type: {tool.get('type')!r}")
        members(tool, place, ("type", "name"), ("description", "parameters", "strict"))
        check(TOOL_NAME.fullmatch(str(tool["name"])), f"{place}.name: {tool['name']!r}")
        strict = tool.get("strict")
        read_schema(tool.get("parameters"), strict is None or strict, place)
        names.append(tool["name"])
    asked.tools = names
    choice = body.get("tool_choice")
    if isinstance(choice, str):
        check(choice in ("auto", "none", "required"), f"tool_choice: {choice!r}")
        asked.forced_tool = names[0] if choice == "required" else None
    elif choice is not None:
        asked.forced_tool = members(choice, "tool_choice", ("type", "name"))["name"]
        check(asked.forced_tool in names, "tool_choice: no such tool")
