"""The request of Gemini's generateContent, read as strictly as Gemini reads it."""

import base64
import json
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
from tests.providers.scenario import Asked, Result

SIGNATURE = base64.b64encode(b"the fake of Gemini signed this").decode()
STAND_IN = "skip_thought_signature_validator"
FIELDS = ("cachedContent", "generationConfig", "safetySettings", "serviceTier", "store", "systemInstruction")
CONFIG = names(
    "candidateCount frequencyPenalty logprobs maxOutputTokens mediaResolution presencePenalty "
    "responseJsonSchema responseLogprobs responseMimeType responseModalities responseSchema seed "
    "stopSequences temperature thinkingConfig topK topP"
)
AS_WRITTEN = frozenset({"args", "response", "parametersJsonSchema", "responseJsonSchema", "properties"})
"""What is the caller's own data: names in it stay as they are."""
UNKNOWN_IN_SCHEMA = frozenset(
    {"$schema", "$ref", "$defs", "$id", "additionalProperties", "const", "exclusiveMinimum", "propertyNames"}
)
PART = frozenset({"text", "thought", "thoughtSignature", "inlineData", "functionCall", "functionResponse"})
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")


def camel(value: Any) -> Any:
    """*value* with the names that Google spells in snake_case too in the other spelling."""
    if isinstance(value, list):
        return [camel(each) for each in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for name, member in value.items():
        spelled = re.sub(r"(?<=[a-z])_([a-z])", lambda match: match[1].upper(), name)
        found[spelled] = member if spelled in AS_WRITTEN else camel(member)
    return found


def read_generate(body: JSON, model: str) -> Asked:
    """What *body* asks of *model*."""
    body = camel(body)
    members(body, "body", ("contents",), (*FIELDS, "tools", "toolConfig", "model"))
    asked = Asked(model)
    if "systemInstruction" in body:
        system = members(body["systemInstruction"], "systemInstruction", ("parts",), ("role",))
        asked.system = "".join(members(part, "systemInstruction", ("text",))["text"] for part in system["parts"])
    conversation = _Conversation(asked)
    for index, content in enumerate(is_list(body["contents"], "contents")):
        conversation.read(content, f"contents[{index}]")
    conversation.end()
    _tools(body, asked)
    _config(body.get("generationConfig", {}), asked)
    return asked


class _Conversation:
    """Turns one after the other; after calls come as many responses, in one turn."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._open: list[JSON] = []  # the calls without response

    def read(self, value: object, place: str) -> None:
        content = members(value, place, ("parts",), ("role",))
        role = content.get("role", "user")
        check(role in ("user", "model", "function"), f"{place}.role: Please use a valid role: user, model.")
        parts = [members(part, place, (), PART) for part in is_list(content["parts"], f"{place}.parts")]
        responses = [part["functionResponse"] for part in parts if "functionResponse" in part]
        check(
            len(responses) == len(self._open),
            f"{place}: the number of function response parts ({len(responses)}) must be equal to "
            f"the number of function call parts of the function call turn ({len(self._open)})",
        )
        if responses:
            self._responses(responses, place)
        if role == "model":
            self._model(parts, place)
        else:
            self._user(parts, place, has_responses=bool(responses))

    def end(self) -> None:
        """Refuse the request when calls were not answered."""
        check(not self._open, "contents: function calls without a response")

    def _responses(self, responses: list[JSON], place: str) -> None:
        for response, call in zip(responses, self._open, strict=True):
            members(response, place, ("name", "response"), ("id", "parts", "willContinue", "scheduling"))
            check(response["name"] == call["name"], f"{place}: a response of {response['name']!r} to {call['name']!r}")
            value = is_object(response["response"], f"{place}.functionResponse.response")
            # Any object will do: clients have `result`, `output`, or `name` and `content`.
            check(value, f"{place}.functionResponse.response: empty")
            self._asked.learn(Result(call["name"], json.dumps(value, ensure_ascii=False)))
            shown = response.get("parts", [])
            check(not shown or self._asked.model.startswith("gemini-3"), "functionResponse.parts: not with this model")
            for part in shown:
                self._image(members(part, place, ("inlineData",))["inlineData"], place)
        self._open = []

    def _model(self, parts: list[JSON], place: str) -> None:
        calls = [part for part in parts if "functionCall" in part]
        for part in parts:
            signature = part.get("thoughtSignature")
            if signature in (SIGNATURE, STAND_IN, base64.b64encode(STAND_IN.encode()).decode()):
                self._asked.signatures = [*self._asked.signatures, signature]
            else:
                check(signature is None, f"{place}: Corrupted thought signature.")
        if calls and self._asked.model.startswith("gemini-3"):
            name = calls[0]["functionCall"]["name"]
            check(
                "thoughtSignature" in calls[0],
                f"Function call is missing a thought_signature in functionCall parts: {name}",
            )
        for part in calls:
            call = members(part["functionCall"], place, ("name",), ("args", "id"))
            is_object(call.get("args", {}), f"{place}.functionCall.args")
            self._open.append(call)

    def _user(self, parts: list[JSON], place: str, *, has_responses: bool) -> None:
        texts = [is_text(part["text"], place) for part in parts if "text" in part]
        for part in parts:
            check("functionCall" not in part, f"{place}: a functionCall of the user")
            if "inlineData" in part:
                self._image(part["inlineData"], place)
        if texts:
            self._asked.hear("".join(texts), begins=not has_responses)

    def _image(self, blob: object, place: str) -> None:
        data = members(blob, place, ("mimeType", "data"), ("displayName",))
        image = data["mimeType"], decoded_base64(data["data"], place, url_safe=True)
        self._asked.images = [*self._asked.images, image]


def _tools(body: JSON, asked: Asked) -> None:
    names = []
    for tool in body.get("tools", []):
        if "googleSearch" in tool:
            members(
                members(tool, "tools", ("googleSearch",))["googleSearch"],
                "tools.googleSearch",
                (),
                ("timeRangeFilter",),
            )
            continue
        for function in members(tool, "tools", ("functionDeclarations",))["functionDeclarations"]:
            optional = ("description", "parameters", "parametersJsonSchema", "behavior")
            members(function, "functionDeclarations", ("name",), optional)
            check(NAME.fullmatch(function["name"]), f"Invalid function name: {function['name']!r}")
            check(not {"parameters", "parametersJsonSchema"} <= function.keys(), "parameters and parametersJsonSchema")
            if "parameters" in function:
                openapi(function["parameters"], "functionDeclarations.parameters")
            names.append(function["name"])
    asked.tools = names
    known = ("functionCallingConfig", "retrievalConfig", "includeServerSideToolInvocations")
    config = members(body.get("toolConfig", {}), "toolConfig", (), known)
    searches = any("googleSearch" in tool for tool in body.get("tools", []))
    is_mixed = bool(names) and searches
    check(
        not is_mixed or config.get("includeServerSideToolInvocations"),
        "Please enable tool_config.include_server_side_tool_invocations to use Built-in tools with Function calling.",
    )
    calling = config.get("functionCallingConfig")
    if calling is not None:
        members(calling, "functionCallingConfig", (), ("mode", "allowedFunctionNames", "streamFunctionCallArguments"))
        mode, allowed = calling.get("mode", "AUTO"), calling.get("allowedFunctionNames")
        check(mode in ("AUTO", "ANY", "NONE", "VALIDATED"), f"functionCallingConfig.mode: {mode!r}")
        check(not allowed or mode in ("ANY", "VALIDATED"), "allowedFunctionNames: only with mode ANY")
        if mode == "ANY":
            asked.forced_tool = (allowed or names)[0]


def openapi(schema: object, place: str) -> JSON:
    """*schema*, which must be of the subset that `parameters` and `responseSchema` know; types in lower case."""
    found = dict(is_object(schema, place))
    unknown = UNKNOWN_IN_SCHEMA & found.keys()
    if unknown:
        raise invalid(f"Invalid JSON payload received. Unknown name {min(unknown)!r} at '{place}'")
    if "type" in found:
        found["type"] = str(found["type"]).lower()
    if "properties" in found:
        found["properties"] = {name: openapi(each, place) for name, each in found["properties"].items()}
    if "items" in found:
        found["items"] = openapi(found["items"], place)
    return found


def _config(config: object, asked: Asked) -> None:
    found = members(config, "generationConfig", (), CONFIG)
    within(found, "temperature", 0, 2)
    within(found, "topP", 0, 1)
    check(len(found.get("stopSequences", [])) <= 5, "stopSequences: at most 5")
    thinking = members(found.get("thinkingConfig", {}), "thinkingConfig", (), THINKING)
    check(not {"thinkingBudget", "thinkingLevel"} <= thinking.keys(), "thinkingBudget and thinkingLevel together")
    check("thinkingLevel" not in thinking or asked.model.startswith("gemini-3"), "Thinking level is not supported")
    asked.thinks = bool(thinking.get("includeThoughts"))
    schema = found.get("responseJsonSchema")
    if "responseSchema" in found:
        check(schema is None, "responseSchema and responseJsonSchema together")
        schema = openapi(found["responseSchema"], "generationConfig.responseSchema")
    if schema is not None:
        check(found.get("responseMimeType") == "application/json", "a schema needs responseMimeType application/json")
        asked.schema = schema


THINKING = ("includeThoughts", "thinkingBudget", "thinkingLevel")
