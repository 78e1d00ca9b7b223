"""`llmproxy check`: what a file configures, or every problem in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from llmproxy_core.dialect import Operation
from llmproxy_core.gateway import Gateway
from llmproxy_core.llm_config import LLMConfig
from llmproxy_core.plugins import Registry
from llmproxy_core.routing import Route
from llmproxy_server.cli_exit import ExitCode, counted, problems_of
from llmproxy_server.cli_explain import own_endpoints
from llmproxy_server.cli_llm import answer_forms, chain_words, llm_words, reached
from llmproxy_server.cli_load import LookTransport, load_configuration, load_registry, look_at
from llmproxy_server.cli_models import model_warnings
from llmproxy_server.cli_terminal import columns, say, strong
from llmproxy_server.loader import Loaded
from llmproxy_server.settings import DEFAULT


def check(file: str) -> None:
    """Print what *file* configures; the command ends with NOT_SO when it cannot be served."""
    registry = load_registry()
    loaded = load_configuration(file, registry, exit_code=ExitCode.NOT_SO)
    with problems_of(file, ExitCode.NOT_SO):
        lines = look_at(loaded, registry, _report)
    config = loaded.config
    warnings = [*map(str, loaded.warnings), *model_warnings(config)]
    numbers = {"route": len(config.routes), "LLM": len(config.llms), "processor": len(config.processors)}
    counts = ", ".join(counted(number, noun) for noun, number in numbers.items())
    say(f"{strong(f'{file} is valid', 'green')}: {counts}, {counted(len(warnings), 'warning')}")
    for line in [*_settings(loaded), *lines, *_warnings(warnings)]:
        say(line)


async def _report(gateway: Gateway, _: LookTransport) -> list[str]:
    own_endpoints(gateway)  # ConfigError where a plugin has one of the proxy's own
    return [line for route in gateway.routes for line in _route(route, gateway)]


# -- routes ----------------------------------------------------------------------------------------------------------


def _route(route: Route, gateway: Gateway) -> Iterator[str]:
    target = route.config.target_llm
    yield ""
    yield f"{strong(route.name)} -> {target}"
    dialects = ", ".join(dialect.name for dialect in route.dialects)
    yield from columns(
        [
            ("clients speak", dialects),
            ("answers", answer_forms(route.config)),
            *_llms(target, gateway.config.llms, gateway.registry),
            *((operation.value, _chain(route, operation)) for operation in Operation if operation in route.chains),
        ]
    )


def _llms(target: str, llms: Mapping[str, LLMConfig], registry: Registry) -> Iterator[tuple[str, str]]:
    for name in reached(target, llms):
        yield f"llm.{name}", llm_words(llms[name], registry)


def _chain(route: Route, operation: Operation) -> str:
    steps = route.steps[operation]
    target = route.config.target_llm
    if operation is Operation.MODELS and route.llm.models.listed:
        target = f"the list in the configuration ({counted(len(route.llm.models.names), 'name')})"
    past = [name for name in route.config.processors if name not in steps]
    return chain_words(steps, target) + (f"  (passes by {', '.join(past)})" if past else "")


# -- the rest --------------------------------------------------------------------------------------------------------


def _settings(loaded: Loaded) -> Iterator[str]:
    """What is not left to its default, each with its origin: of the server, and of other tables by the environment."""
    changed = [it for it in loaded.settings if it.origin != DEFAULT]
    changed.extend(loaded.settings.tables)
    if changed:
        yield ""
        yield strong("settings that are given")
        yield from columns((it.name, written_value(it.value), f"from {it.origin}") for it in changed)


def written_value(value: object) -> str:
    """*value* as TOML, where it can be said in TOML."""
    return msgspec.json.encode(value, enc_hook=str).decode()


def _warnings(warnings: Sequence[str]) -> Iterator[str]:
    if warnings:
        yield ""
    for warning in warnings:
        yield f"{strong('warning:', 'yellow')} {warning}"
