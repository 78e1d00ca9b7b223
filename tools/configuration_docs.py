"""
Writes docs/configuration.md and config.schema.json from the configuration classes of the registered plugins.

`python tools/configuration_docs.py` writes them; a test holds that they are not stale.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import attrs

from llmproxy_core.config_path import escaped, written
from llmproxy_core.config_problem import shown
from llmproxy_core.config_schema import json_schema, meaning, type_schema
from llmproxy_core.config_tables import ProcessorTable, RouteConfig, ServerConfig, StoreTable, TelemetryConfig
from llmproxy_core.group_config import GroupConfig
from llmproxy_core.llm_config import HttpLLMConfig, LLMConfig
from llmproxy_core.money import Money
from llmproxy_core.option import Check, Option, WrittenAs, options
from llmproxy_core.plugins import Registry
from llmproxy_server.embedded import KNOWN_PROVIDERS
from llmproxy_server.variables import LLM_VARIABLES, SERVER_VARIABLES, TELEMETRY_VARIABLES, Variable, option_variables

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs" / "configuration.md"
SCHEMA = ROOT / "config.schema.json"

INTRODUCTION = """\
# Configuration

<!-- Written by tools/configuration_docs.py from the configuration classes: change them, then run it. -->

One TOML 1.1 file (inline tables may span lines) says everything:

```toml
[llm.demo]
provider = "demo"

[[route]]
path_prefix = "/v1"
target_llm = "demo"
```

`llmproxy check FILE` validates it and names every problem at once, with its line, what was found, what was expected
and the nearest right name. Places are written as TOML does, and elements of arrays count from 1:
`route[1].processors[2]` is the second processor of the first `[[route]]`.
[config.example.toml](../config.example.toml) shows every key; [config.schema.json](../config.schema.json) is the same
for editors (`llmproxy schema` prints it with your own plugins).

Command line wins over environment, environment over file, file over default. Variables that are not set are taken from
`.env` in the working directory. Unknown keys, values of another type ("3" is no integer) and names that stand for
nothing are problems, not warnings. Secrets do not belong into the file: `token_env` and `{ env = "NAME" }` name the
variables that hold them; a variable that is empty counts as not set.

Names of LLMs, processors and stores are up to 64 letters, digits, `_`, `-` and `.`.
"""

DEFAULT_FILE = """
## Without a file

`llmproxy serve` without `--config` serves one route, `/v1`, whose LLM chooses by the model asked for among every vendor
whose key is in the environment, and the demo. Without any key, the demo answers for every model.

| LLM | Key | URL | Models |
|---|---|---|---|
"""


def type_words(kind: Any) -> str:
    """The TOML type of a key for a table cell."""
    members = [it for it in get_args(kind) if it is not type(None)]
    if len(members) == 1 and type(None) in get_args(kind):
        return type_words(members[0])
    if get_origin(kind) is Annotated and any(isinstance(it, WrittenAs) for it in kind.__metadata__):
        return type_words(next(it.form for it in kind.__metadata__ if isinstance(it, WrittenAs)))
    schema = type_schema(kind)
    if "anyOf" in schema:
        return " or ".join(map(type_words, members))
    if "enum" in schema:
        values = schema["enum"]
        assert isinstance(values, list)
        return ", ".join(f'`"{value}"`' for value in values)
    name = schema.get("type", "any value")
    if name == "array":
        return f"array of {type_words(members[0])}"
    names = {"object": "table", "boolean": "true or false"}
    return " or ".join(names.get(str(it), str(it)) for it in (name if isinstance(name, list) else [name]))


def toml(value: object) -> str:
    """*value* as TOML writes it in one line."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{written((str(key),))} = {toml(it)}" for key, it in value.items()) + " }"
    if isinstance(value, frozenset):
        value = sorted(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return f'"{escaped(value)}"' if isinstance(value, str) else shown(value)


def words(declared: Option) -> str:
    """What a key means, for a table cell."""
    said = [meaning(declared)]
    highest = declared.validator.schema.get("maximum") if isinstance(declared.validator, Check) else None
    if isinstance(highest, int | float) and highest < 1_000_000:  # the other bounds only keep numbers sane
        said.append(f"At most {highest}.")
    if declared.example is not None:
        said.append(f"Example: `{toml(declared.example)}`.")
    return " ".join(said).replace("|", "\\|")


def default(field: attrs.Attribute[Any]) -> str:
    if field.default is attrs.NOTHING:
        return "required"
    if field.default is None or isinstance(field.default, tuple | frozenset | Mapping):
        return "–" if not field.default else f"`{toml(field.default)}`"
    if isinstance(field.default, Money):
        return f'`"{str(field.default).removeprefix("$")}"`'
    return "see its keys" if attrs.has(type(field.default)) else f"`{toml(field.default)}`"


def rows(config: type[Any], *, without: type[Any] | None = None, prefix: str = "") -> Iterator[str]:
    """The keys of *config* as rows, those of tables inside it below their own; not those of *without*."""
    known = {field.name for field, _ in options(without)} if without else set()
    for field, declared in options(config):
        if field.name in known:
            continue
        name = f"{prefix}{field.name}"
        yield f"| `{name}` | {type_words(field.type)} | {default(field)} | {words(declared)} |\n"
        for inner, inner_prefix in inner_tables(field.type, name):
            yield from rows(inner, prefix=inner_prefix)


def inner_tables(kind: Any, name: str) -> Iterator[tuple[type[Any], str]]:
    """The classes of the tables that a key may hold, each with how the names of its keys begin."""
    form = next((it.form for it in getattr(kind, "__metadata__", ()) if isinstance(it, WrittenAs)), None)
    if form is not None:
        yield from inner_tables(form, name)
    elif attrs.has(kind):
        yield kind, f"{name}."
    elif get_origin(kind) in (Union, UnionType):
        for member in get_args(kind):
            yield from inner_tables(member, name)
    elif get_origin(kind) in (tuple, frozenset):
        yield from inner_tables(get_args(kind)[0], f"{name}[]")
    elif isinstance(get_origin(kind), type) and issubclass(get_origin(kind), Mapping):
        yield from inner_tables(get_args(kind)[1], f"{name}.NAME")


def table(config: type[Any], *, without: type[Any] | None = None) -> str:
    head = "\n| Key | Type | Default | Meaning |\n|---|---|---|---|\n"
    body = "".join(rows(config, without=without))
    return head + body if body else "\nNo keys of its own.\n"


def paragraph(config: type[Any]) -> str:
    return " ".join((config.__doc__ or "").split())


def providers(registry: Registry) -> Iterator[str]:
    for name, kind in sorted(registry.providers.items()):
        base = next(it for it in (HttpLLMConfig, GroupConfig, LLMConfig) if issubclass(kind.config, it))
        origin = {HttpLLMConfig: " and those over HTTP", GroupConfig: " and those of groups", LLMConfig: ""}[base]
        yield f'\n### provider = "{name}"\n\nThe keys of every LLM{origin}.\n'
        if kind.types:
            yield "Values of `type`: " + ", ".join(f'`"{it}"`' for it in sorted(kind.types)) + ".\n"
        if kind.config is not base:
            yield table(kind.config, without=base)


def types(kinds: Mapping[str, Any]) -> Iterator[str]:
    """The keys of each type; types that share a configuration class stand together."""
    by_config: dict[type[Any], list[str]] = {}
    for name, kind in sorted(kinds.items()):
        by_config.setdefault(kind.config, []).append(name)
    for config, names in by_config.items():
        heading = " or ".join(f'"{name}"' for name in names)
        yield f"\n### type = {heading}\n\n{paragraph(config)}\n{table(config)}"


def variables(title: str, rows: Iterable[tuple[Variable, str]]) -> str:
    """A table of *rows*: a variable, and the key that it stands for; nothing when there are none."""
    cells = "".join(f"| `{variable.name}` | {key} | {variable.doc} |\n" for variable, key in rows)
    return f"\n{title}\n\n| Variable | Key | Meaning |\n|---|---|---|\n{cells}" if cells else ""


def keyed(rows: Iterable[Variable]) -> Iterator[tuple[Variable, str]]:
    return ((variable, f"`{variable.key}`") for variable in rows)


def of_types(registry: Registry) -> Iterator[tuple[Variable, str]]:
    """The variables of processors and stores."""
    sections: dict[str, Mapping[str, Any]] = {"processor": registry.processors, "store": registry.stores}
    for section, kinds in sections.items():
        for name, kind in sorted(kinds.items()):
            for variable in option_variables(kind.config):
                yield variable, f'`{variable.key}` of each {section} with `type = "{name}"`'


def vendors() -> str:
    return "".join(
        f"| `{it.name}` | {' or '.join(f'`{name}`' for name in it.variables)} | {it.base_url} | "
        f"{', '.join(f'`{model}`' for model in it.models)} |\n"
        for it in KNOWN_PROVIDERS
    )


PROXIES = """
`HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, in small letters or in capitals, name the proxy of LLMs over HTTP that have
no `proxy`, no `unix_socket` and not `transport = "wire"`. Addresses of this machine are always called directly, as are
hosts, domains, addresses and networks in `NO_PROXY`.
"""


def reference(registry: Registry) -> str:
    """The text of docs/configuration.md."""
    return "".join(
        [
            INTRODUCTION,
            f"\n## [server]\n\n{paragraph(ServerConfig)}\n{table(ServerConfig)}",
            f"\n## [telemetry]\n\n{paragraph(TelemetryConfig)}\n{table(TelemetryConfig)}",
            f"\n## [llm.NAME]\n\n{paragraph(LLMConfig)}\n{table(LLMConfig)}",
            f"\n### LLMs over HTTP\n\n{paragraph(HttpLLMConfig)}\n{table(HttpLLMConfig, without=LLMConfig)}",
            f"\n### Groups\n\n{paragraph(GroupConfig)}\n{table(GroupConfig, without=LLMConfig)}",
            *providers(registry),
            f"\n## [processor.NAME]\n\n{paragraph(ProcessorTable)}\n{table(ProcessorTable)}",
            *types(registry.processors),
            f"\n## [store.NAME]\n\n{paragraph(StoreTable)}\n{table(StoreTable)}",
            *types(registry.stores),
            f"\n## [[route]]\n\n{paragraph(RouteConfig)}\n{table(RouteConfig)}",
            "\n## Environment\n",
            variables("These stand for keys of `[server]` and win over the file:", keyed(SERVER_VARIABLES)),
            variables("These stand for keys of `[telemetry]` and win over the file:", keyed(TELEMETRY_VARIABLES)),
            variables(
                "These stand for keys of every LLM over HTTP and win over the file (durations are seconds, or written "
                'as "90s", "1m30s"):',
                keyed(LLM_VARIABLES),
            ),
            PROXIES,
            variables(
                "These stand for a key of a type, wherever it is written, and win over the file:", of_types(registry)
            ),
            "\n`HOST` is not read: shells set it to the name of the machine.\n",
            DEFAULT_FILE,
            vendors(),
        ]
    )


def schema(registry: Registry) -> str:
    """The text of config.schema.json."""
    return json.dumps(json_schema(registry), indent=2, ensure_ascii=False) + "\n"


def own_registry() -> Registry:
    """What this distribution registers, whatever else is installed. SystemExit when a plugin could not be used."""
    registry = Registry.load()
    if registry.broken:
        raise SystemExit("\n".join(map(str, registry.broken)))
    return own_part(registry)


def own_part(registry: Registry) -> Registry:
    """What of *registry* this distribution registers."""
    own = {key for key, origin in registry.origins.items() if origin.distribution == "llmproxy"}
    return Registry(
        processors={name: it for name, it in registry.processors.items() if ("processor", name) in own},
        providers={name: it for name, it in registry.providers.items() if ("provider", name) in own},
        dialects={name: it for name, it in registry.dialects.items() if ("dialect", name) in own},
        stores={name: it for name, it in registry.stores.items() if ("store", name) in own},
    )


if __name__ == "__main__":
    DOCS.parent.mkdir(exist_ok=True)
    DOCS.write_text(reference(own_registry()), encoding="utf-8")
    SCHEMA.write_text(schema(own_registry()), encoding="utf-8")
