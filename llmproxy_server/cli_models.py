"""Which models the members of a group would be asked for, and do not know: what `check` warns of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from llmproxy_core.config import Config
from llmproxy_core.group_config import FallbackConfig, GroupConfig
from llmproxy_core.llm_config import HttpLLMConfig, LLMConfig
from llmproxy_core.model_map import ModelMap
from llmproxy_server.prices import known_models

Knows = Callable[[str, str], bool | None]
"""Whether the provider at a URL has a model of a name; None: nobody knows that provider."""


def model_warnings(config: Config, knows: Knows | None = None) -> Iterator[str]:
    """
    A line for each model that one member of a group serves and another would not.

    *knows* is what providers have, as far as the price list tells; it is loaded only where there is a group.
    """
    for group in config.llms.values():
        if isinstance(group, FallbackConfig) and group.enabled:
            knows = knows or known_models()
            for asked in _names(group, config.llms):
                yield from _strangers(group, asked, config.llms, knows)


def _names(group: FallbackConfig, llms: Mapping[str, LLMConfig]) -> list[str]:
    """The models that are written out: the group's own, else its members'."""
    own = ModelMap(group.models, group.model)
    if own.listed:
        return own.names
    listed = [ModelMap(llms[member].models, llms[member].model) for member in group.members]
    return list(dict.fromkeys(name for models in listed for name in models.names))


def _strangers(group: FallbackConfig, asked: str, llms: Mapping[str, LLMConfig], knows: Knows) -> Iterator[str]:
    meant = ModelMap(group.models, group.model).sent(asked)
    if meant is None:
        return
    for name in group.members:
        member = llms[name]
        if isinstance(member, GroupConfig):
            continue
        sent = ModelMap(member.models, member.model).sent(meant)
        if sent is None:
            yield f'llm.{group.name}: "{name}" does not serve the model "{asked}", and is passed over for it'
        elif isinstance(member, HttpLLMConfig) and knows(member.base_url, sent) is False:
            yield (
                f'llm.{group.name}: the provider of "{name}" is not known to have the model "{sent}"; '
                f'`models` in [llm.{name}] can say what is sent for "{asked}"'
            )
