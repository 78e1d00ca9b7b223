"""How much to think, and in what form to answer: `thinking` and `output_config`."""

from __future__ import annotations

from collections.abc import Mapping

from llmproxy_anthropic.claude import Claude, claude
from llmproxy_anthropic.conversation import is_begun, may_think
from llmproxy_anthropic.output_limit import output_limit
from llmproxy_anthropic.schema import strict_schema
from llmproxy_anthropic.tools import forces_a_tool
from llmproxy_core.chat import ChatRequest, JSONText, ReasoningConfig, ResponseFormat
from llmproxy_core.wire import (
    INTEGER,
    STRING,
    Changes,
    Members,
    Values,
    Wire,
    answer_schema,
    encode,
    join_object,
    with_members,
)

_SMALLEST_BUDGET = 1_024

# Efforts as numbers of tokens, for the models that count, and back; the widespread split of gateways.
_BUDGETS = {"minimal": 1_024, "low": 2_048, "medium": 8_192, "high": 24_576, "xhigh": 32_768, "max": 49_152}
_EFFORTS = ((2_048, "low"), (8_192, "medium"))
_NEAREST = {"minimal": "low", "xhigh": "high"}
_OFF = {"type": b'"disabled"'}


# -- reading -------------------------------------------------------------------------------------------------


def read_thinking(members: Members, wire: Wire) -> Values:
    """The fields `reasoning` and `response_format`."""
    config = members.object("output_config")
    effort = wanted = None
    if config is not None:
        effort, wanted = config.take("effort", STRING), _read_format(config, "format", wire)
        members.keep(config)
    if wanted is None:
        wanted = _read_format(members, "output_format", wire)  # its name while it was a beta
    return {"reasoning": _read_reasoning(members, effort), "response_format": wanted}


def _read_reasoning(members: Members, effort: str | None) -> ReasoningConfig | None:
    thinking = members.object("thinking")
    if thinking is None:
        return None if effort is None else ReasoningConfig(effort)
    display = thinking.take("display", STRING)
    include = None if display is None else display != "omitted"
    kind = thinking.need("type", STRING)
    budget = (thinking.need if kind == "enabled" else thinking.take)("budget_tokens", INTEGER)
    members.keep(thinking)
    match kind:
        case "enabled":
            # What is thought in a budget is shown, unless the client says otherwise.
            return ReasoningConfig(effort, budget, include=True if include is None else include)
        case "adaptive":
            return ReasoningConfig(effort, adaptive=effort is None, include=include)
        case "between_tools":
            return ReasoningConfig(effort, between_tools=True, include=include)
        case _:
            return ReasoningConfig("none")


def _read_format(members: Members, name: str, wire: Wire) -> ResponseFormat | None:
    """The format in the member *name*; one that nobody knows stays an unknown member."""
    text = members.peek(name)
    if text is None or text == b"null":
        return None
    inner = Members(text, members.at(name), wire.fail)
    if inner.need("type", STRING) != "json_schema":
        return None
    members.raw(name)
    wanted = ResponseFormat("json_schema", name=inner.take("name", STRING), schema=inner.raw("schema"))
    members.keep(inner)
    return wanted


# -- writing -------------------------------------------------------------------------------------------------


def write_thinking(chat: ChatRequest, wire: Wire, before: Mapping[str, JSONText]) -> Changes:
    """`thinking` and `output_config`; *before* is empty for a request that is written anew."""
    thinking, effort = _again(chat.reasoning, before) if before else asked_thinking(chat, wire)
    config: Changes = {"effort": None if effort is None else encode(effort), "format": _format(chat, wire, before)}
    was = before.get("output_config", b"null")
    written: JSONText | None = with_members(b"{}" if was == b"null" else was, config)
    old = {"output_format": None} if "output_format" in before else {}
    return {
        "thinking": join_object(thinking) if thinking else None,
        "output_config": None if written == b"{}" else written,
    } | old


def _format(chat: ChatRequest, wire: Wire, before: Mapping[str, JSONText]) -> bytes | None:
    wanted = chat.response_format
    if wanted is None or wanted.kind != "json_schema" or wanted.schema is None:
        return None
    if not before and not claude(chat.model).takes_format:
        return None  # a tool says it
    said = answer_schema(wanted, wire) or wanted.schema
    schema = said if before else strict_schema(said)
    if schema != said:
        wire.convert("response_format", "cleaned")
    return join_object({"type": b'"json_schema"', "schema": schema})


def _again(reasoning: ReasoningConfig | None, before: Mapping[str, JSONText]) -> tuple[dict[str, bytes], str | None]:
    """What a request of this protocol, that a processor changed, says: as it is, for whatever model."""
    if reasoning is None:
        return {}, None
    if _is_off(reasoning):
        return _OFF, None
    was_said = b'"display"' in before.get("thinking", b"")
    display = _display(reasoning) if was_said or reasoning.include is False else {}
    if reasoning.budget_tokens is not None and reasoning.budget_tokens > 0:
        return {"type": b'"enabled"', "budget_tokens": encode(reasoning.budget_tokens)} | display, reasoning.effort
    if reasoning.between_tools:
        return {"type": b'"between_tools"'} | display, reasoning.effort
    if reasoning.effort is not None and b'"effort"' in before.get("output_config", b"") and "thinking" not in before:
        return {}, reasoning.effort  # of the whole answer, which is not to think
    return {"type": b'"adaptive"'} | display, reasoning.effort


def asked_thinking(chat: ChatRequest, wire: Wire) -> tuple[dict[str, bytes], str | None]:
    """The members of `thinking`, and the effort, as the model takes them; recorded where they are other than asked."""
    reasoning, rules = chat.reasoning, claude(chat.model)
    if reasoning is None:
        return {}, None
    if _is_off(reasoning) and rules.always_thinks:
        wire.convert("reasoning", "clamped")
        return {}, rules.efforts[0]
    if _is_off(reasoning):
        return (_OFF if rules.thinks else {}), None
    if not rules.thinks:
        wire.refuse("reasoning", "thinking with this model")
        return {}, None
    if reasoning.between_tools:
        return {"type": b'"between_tools"'}, _effort(reasoning, rules, wire)
    if _adapts(chat, reasoning):
        return {"type": b'"adaptive"'} | _display(reasoning), _effort(reasoning, rules, wire)
    return _budgeted(chat, reasoning, wire), None


def thinks(chat: ChatRequest, wire: Wire) -> bool:
    """Whether the model will think, as it is asked anew."""
    reasoning, rules = chat.reasoning, claude(chat.model)
    if reasoning is None or _is_off(reasoning) or not rules.thinks:
        return False
    return reasoning.between_tools or _adapts(chat, reasoning) or _has_room(chat, wire)


def _adapts(chat: ChatRequest, reasoning: ReasoningConfig) -> bool:
    """Whether the model decides how much; one that takes a number too gets the number that was asked for."""
    rules = claude(chat.model)
    has_budget = reasoning.budget_tokens is not None and reasoning.budget_tokens > 0 and reasoning.effort is None
    return rules.adapts and not (has_budget and rules.takes_budget and not forces_a_tool(chat))


def _has_room(chat: ChatRequest, wire: Wire) -> bool:
    """Whether a number of tokens for thinking fits into the answer's, and nothing forbids it."""
    forbidden = forces_a_tool(chat) or is_begun(chat.messages) or not may_think(chat.messages)
    return output_limit(chat, wire) > _SMALLEST_BUDGET and not forbidden


def _budgeted(chat: ChatRequest, reasoning: ReasoningConfig, wire: Wire) -> dict[str, bytes]:
    """Thinking within a number of tokens."""
    if not _has_room(chat, wire):
        wire.convert("reasoning", "dropped")
        return {}
    asked, limit = reasoning.budget_tokens, output_limit(chat, wire)
    wanted = asked if asked is not None and asked > 0 else _BUDGETS.get(reasoning.effort or "", _BUDGETS["medium"])
    budget = max(_SMALLEST_BUDGET, limit * 3 // 4 if wanted >= limit else wanted)
    if budget != wanted:
        wire.convert("reasoning", "clamped")
    return {"type": b'"enabled"', "budget_tokens": encode(budget)}


def _effort(reasoning: ReasoningConfig, rules: Claude, wire: Wire) -> str | None:
    """The word for how much to think that *rules* allow; None where the model decides."""
    word, budget = reasoning.effort, reasoning.budget_tokens
    if word is None:
        if budget is None or budget < 0:
            return None
        return next((it for bound, it in _EFFORTS if budget <= bound), "high")
    if word in rules.efforts:
        return word
    wire.convert("reasoning", "clamped")
    return _NEAREST.get(word, "high")


def _is_off(reasoning: ReasoningConfig) -> bool:
    return reasoning.effort == "none" or (reasoning.budget_tokens == 0 and reasoning.effort is None)


def _display(reasoning: ReasoningConfig) -> dict[str, bytes]:
    """Newer models show nothing of their thinking unless they are asked to."""
    if reasoning.include is False:
        return {"display": b'"omitted"'}
    if reasoning.include or reasoning.summary not in (None, "none"):
        return {"display": b'"summarized"'}
    return {}
