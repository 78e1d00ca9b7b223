"""The keys of a `[processor.…]` table of type `chaos`, and of an `[llm.…]` table of provider `chaos`."""

from __future__ import annotations

import attrs

from llmproxy_chaos.faults import Faults
from llmproxy_core import ConfigError, GroupConfig, Problem, option


@attrs.frozen(kw_only=True)
class ChaosConfig:
    """Injects faults into a share of the calls. For tests and rehearsals: callers do get these errors."""

    seed: int = option("Another one gives another sequence of decisions; the same one the same.", default=0)
    faults: Faults = option(
        "The kinds of faults, each with its share.",
        example={"error": {"share": 0.05, "status": 529}, "cut": {"share": 0.02, "after_chars": 200}},
    )


@attrs.frozen(kw_only=True)
class ChaosLLMConfig(GroupConfig):
    """Another LLM, its one member, with faults: whatever stands above meets them as a real provider's."""

    seed: int = option("Another one gives another sequence of decisions; the same one the same.", default=0)
    faults: Faults = option(
        "The kinds of faults, each with its share.",
        example={"error": {"share": 0.05, "status": 529}, "cut": {"share": 0.02, "after_chars": 200}},
    )


def require_a_fault(faults: Faults) -> None:
    """ConfigError when there is none: chaos that does nothing is a mistake of whoever believes to be tested."""
    if not faults.configured:
        kinds = ", ".join(name for name, _ in faults.kinds())
        raise ConfigError([Problem("faults", f"expected at least one of {kinds}")])


def require_one_member(config: ChaosLLMConfig) -> str:
    """Its name; ConfigError when there are several."""
    if len(config.members) != 1:
        raise ConfigError([Problem("members", f"expected one LLM, got {len(config.members)}")])
    return config.members[0]
