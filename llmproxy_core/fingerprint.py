"""What decides the answers of a route, as a digest of its configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from hashlib import sha256

import attrs

from llmproxy_core.config_names import references
from llmproxy_core.config_tables import Config, RouteConfig
from llmproxy_core.group_config import GroupConfig


def fingerprint(route: RouteConfig, config: Config) -> str:
    """
    Another one whenever a key of *route*, of its processors, or of an LLM that these or it name, is another.

    The same in every process. Secrets are left out: they show as stars.
    """
    processors = [config.processors[name] for name in route.processors]
    parts: list[object] = [route]
    parts += [(it.name, it.type.name, it.config, it.uncovered, it.timeout_s, it.on_error) for it in processors]
    names = [route.target_llm, *(name for it in processors for name in _llms_in(it.config))]
    seen = set[str]()
    while names:
        name = names.pop()
        if name not in seen and (llm := config.llms.get(name)) is not None:
            seen.add(name)
            parts.append(llm)
            names += [*_llms_in(llm), *(llm.members if isinstance(llm, GroupConfig) else ())]
    return sha256("\n".join(map(_written, parts)).encode()).hexdigest()


def _llms_in(table: object) -> Iterator[str]:
    """The LLMs that *table* names."""
    kind = type(table)
    if attrs.has(kind):
        found = references(kind, {field.name: getattr(table, field.name) for field in attrs.fields(kind)}, ())
        yield from (it.name for it in found if it.section == "llm")


def _written(value: object) -> str:
    """*value* as text, the same for equal values: neither sets nor tables have an order."""
    kind = type(value)
    if attrs.has(kind):
        members = [f"{field.name}={_written(getattr(value, field.name))}" for field in attrs.fields(kind)]
        return f"{kind.__name__}({', '.join(members)})"
    if isinstance(value, Mapping):
        return f"{{{', '.join(sorted(f'{key!r}: {_written(it)}' for key, it in value.items()))}}}"
    if isinstance(value, Set):
        return f"{{{', '.join(sorted(map(_written, value)))}}}"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_written, value))})"
    return repr(value)
