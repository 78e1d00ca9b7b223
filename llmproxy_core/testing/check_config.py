"""The configuration of a processor: its examples are right, and what is wrong is a ConfigError."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import attrs

from llmproxy_core.config import Config
from llmproxy_core.errors import ConfigError
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.option import options
from llmproxy_core.processor import Processor
from llmproxy_core.services import Services
from llmproxy_core.tasks import Tasks
from llmproxy_core.testing.declared import Declared
from llmproxy_core.testing.loop import in_own_loop
from llmproxy_core.testing.stand import PROCESSOR, Stand
from llmproxy_core.testing.verdict import NotConforming

ODD_VALUES: tuple[object, ...] = (
    "", " ", "\n", "no such thing", "é" * 300, -1, 0, 1, 10**30, -0.5, 0.0, 1e-9, 1e308, float("nan"), float("inf"),
    True, [], [""], [{}], {}, {"a": 1},
)  # fmt: skip
"""What operators write by mistake, of every type of TOML."""


def builds_from_its_examples(declared: Declared) -> None:
    """A processor is built from the declared keys, and from each key's own example."""
    stand = Stand(declared)
    try:
        in_own_loop(lambda: _built(stand, stand.config()))
    except NotConforming:
        raise
    except Exception as error:
        raise NotConforming(f"it cannot be built from the keys that it is tested with: {error!r}") from error
    for field, option in options(declared.processor_type.config):
        if option.example is None or option.refers_to is not None or option.secret:
            continue
        try:
            in_own_loop(partial(_tried, stand, _with(declared, field.name, option.example)))
        except ConfigError as error:
            about = f"processor.{PROCESSOR}.{field.name}"
            if any(problem.path.startswith(about) for problem in error.problems):
                raise NotConforming(f"its own example is refused, give a better one in option(...): {error}") from error


def refuses_what_is_wrong(declared: Declared) -> None:
    """Whatever a table holds, a processor is built from it, or there is a ConfigError for the operator."""
    stand = Stand(declared)
    stand.config()
    try:
        stand.structured({**declared.config, "no_such_key": 1})
    except ConfigError:
        pass
    else:
        raise NotConforming("a key that its configuration class does not have is accepted")
    for field, _ in options(declared.processor_type.config):
        for value in ODD_VALUES:
            _must_be_told(stand, field.name, value)


def _must_be_told(stand: Stand, key: str, value: object) -> None:
    try:
        in_own_loop(partial(_tried, stand, _with(stand.declared, key, value)))
    except ConfigError:
        pass
    except Exception as error:
        raise NotConforming(
            f"{key} = {value!r} makes it raise {type(error).__name__}: {error}; what an operator wrote wrongly is a "
            "ConfigError: give the option a validator, or raise ConfigError([Problem(key, what is expected)]) in build"
        ) from error


def _with(declared: Declared, key: str, value: object) -> Mapping[str, object]:
    """The declared keys with another value of one; `config_value` and `additional_config` give way to it."""
    keys = {name: it for name, it in declared.config.items() if name != key}
    more = keys.get("additional_config")
    if isinstance(more, Mapping) and key in more:
        keys["additional_config"] = {name: it for name, it in more.items() if name != key}
    short = {field.name for field, it in options(declared.processor_type.config) if it.fills_config_value}
    if key in short:
        keys.pop("config_value", None)
    return {**keys, key: value}


async def _tried(stand: Stand, keys: Mapping[str, object]) -> None:
    await _built(stand, stand.structured(keys))


async def _built(stand: Stand, config: Config) -> None:
    """A gateway, closed again. What the processor's factory raised leaves as it is, not as what operators are told."""
    table = config.processors[PROCESSOR]
    bugs: list[Exception] = []

    def build(keys: object, services: Services) -> Processor:
        try:
            return table.type.build(keys, services)
        except ConfigError:
            raise
        except Exception as error:
            bugs.append(error)
            raise

    watched = attrs.evolve(table, type=attrs.evolve(table.type, build=build))
    tasks = Tasks()
    try:
        gateway = stand.build(
            attrs.evolve(config, processors=FrozenMap({**config.processors, PROCESSOR: watched})), tasks
        )
    except ConfigError:
        if bugs:
            raise bugs[0] from None
        raise
    await gateway.aclose()
    await tasks.drain(0)
