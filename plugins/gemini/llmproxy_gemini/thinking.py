"""How much to think: `thinkingConfig`, in tokens for older models, in levels for newer ones."""

from __future__ import annotations

from llmproxy_core.chat import ReasoningConfig
from llmproxy_core.wire import BOOLEAN, INTEGER, STRING, Changes, Wire, encode
from llmproxy_gemini.model_kind import generation, is_lite, is_pro
from llmproxy_gemini.spelling import Spelled

_BY_LEVEL = (3, 0)
_BY_BUDGET = (2, 5)

# As Google's own OpenAI surface has them.
_BUDGETS = {"minimal": 1_024, "low": 1_024, "medium": 8_192, "high": 24_576, "xhigh": 24_576, "max": 24_576}
_LEVELS = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "HIGH", "max": "HIGH"}


def read_thinking(config: Spelled) -> ReasoningConfig | None:
    """What `thinkingConfig` says; None when it says nothing that is known."""
    budget, level = config.take("thinkingBudget", INTEGER), config.take("thinkingLevel", STRING)
    include = config.take("includeThoughts", BOOLEAN)
    if level is not None and level.upper() == "THINKING_LEVEL_UNSPECIFIED":
        level = None
    if budget is None and level is None and include is None:
        return None
    effort = None if level is None else level.lower()
    return ReasoningConfig(effort, budget, adaptive=budget == -1, include=include)


def write_thinking(reasoning: ReasoningConfig, model: str | None, wire: Wire) -> Changes:
    """The members of `thinkingConfig` for *model*; {} for one that does not think."""
    version = generation(model)
    if version is not None and version < _BY_BUDGET:
        if _asks(reasoning):
            wire.convert("reasoning", "dropped")
        return {}
    changes: Changes = {"thinkingBudget": None, "thinkingLevel": None}
    if reasoning.between_tools:
        wire.convert("reasoning.between_tools", "dropped")
    if version is None:  # a name that tells nothing: what was said, as it was said
        changes |= _as_said(reasoning)
    elif version >= _BY_LEVEL:
        changes |= _level(reasoning, model, wire)
    else:
        changes |= _budget(reasoning, model, wire)
    include = _shows(reasoning, wire)
    changes["includeThoughts"] = None if include is None else encode(include)
    return changes


def _asks(reasoning: ReasoningConfig) -> bool:
    return reasoning.effort not in {None, "none"} or bool(reasoning.budget_tokens) or reasoning.adaptive


def _shows(reasoning: ReasoningConfig, wire: Wire) -> bool | None:
    """Whether thoughts are in the answer: as said; who asks another protocol for thinking means to see it."""
    if reasoning.include is not None or wire.own:
        return reasoning.include
    if reasoning.summary is None and not _asks(reasoning):
        return None
    wire.convert("reasoning.include", "defaulted")
    return True


def _as_said(reasoning: ReasoningConfig) -> Changes:
    if reasoning.effort is not None and reasoning.effort in _LEVELS:
        return {"thinkingLevel": encode(_LEVELS[reasoning.effort])}
    if reasoning.effort == "none":
        return {"thinkingBudget": b"0"}
    return {} if reasoning.budget_tokens is None else {"thinkingBudget": encode(reasoning.budget_tokens)}


def _level(reasoning: ReasoningConfig, model: str | None, wire: Wire) -> Changes:
    effort = reasoning.effort
    if effort is None and reasoning.budget_tokens is not None:
        effort = _effort(reasoning.budget_tokens)
        wire.convert("reasoning", "converted")
    if effort is None:
        return {}
    level = _LEVELS.get(effort, "MINIMAL" if effort == "none" else "HIGH")
    if level == "MINIMAL" and is_pro(model):
        level = "LOW"
    if level.lower() != effort:
        wire.convert("reasoning", "clamped")
    return {"thinkingLevel": encode(level)}


def _effort(budget: int) -> str | None:
    """A number of tokens as a word; None where the model is to choose."""
    if budget < 0:
        return None
    return next((word for bound, word in ((0, "none"), (2_048, "low"), (8_192, "medium")) if budget <= bound), "high")


def _budget(reasoning: ReasoningConfig, model: str | None, wire: Wire) -> Changes:
    budget = reasoning.budget_tokens
    if budget is None and reasoning.effort is not None:
        budget = 0 if reasoning.effort == "none" else _BUDGETS.get(reasoning.effort, 24_576)
        wire.convert("reasoning", "converted")
    if budget is None:
        return {"thinkingBudget": b"-1"} if reasoning.adaptive else {}
    fitting = budget if budget < 0 else _within(budget, model)
    if fitting != budget:
        wire.convert("reasoning", "clamped")
    return {"thinkingBudget": encode(max(fitting, -1))}


def _within(budget: int, model: str | None) -> int:
    """The nearest budget that *model* takes."""
    if is_pro(model):
        return min(max(budget, 128), 32_768)
    least = 512 if is_lite(model) else 1
    return 0 if budget == 0 else min(max(budget, least), 24_576)
