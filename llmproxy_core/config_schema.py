"""The JSON Schema of the configuration, for editors, made from the configuration classes."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import attrs

from llmproxy_core.config_tables import ProcessorTable, RouteConfig, ServerConfig, StoreTable, TelemetryConfig
from llmproxy_core.hookspecs import ProcessorType, ProviderType, StoreType
from llmproxy_core.money import Money
from llmproxy_core.option import Check, Each, Option, Stated, WrittenAs, options
from llmproxy_core.plugins import Registry
from llmproxy_core.schema_shared import Schema, shared
from llmproxy_core.secret import Secret

DIALECT = "http://json-schema.org/draft-07/schema#"
"""The version that the TOML editors read."""

_SCALARS: dict[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}


def json_schema(registry: Registry) -> Schema:
    """
    The schema of a whole file: every section and key, with the keys of each registered provider and type.

    What several tables have alike stands once, in `$defs`.
    """
    return shared(_sections(registry))


def _sections(registry: Registry) -> Schema:
    return {
        "$schema": DIALECT,
        "title": "llmproxy configuration",
        "type": "object",
        "additionalProperties": False,
        "required": ["route"],
        "properties": {
            "server": table_schema(ServerConfig),
            "telemetry": table_schema(TelemetryConfig),
            "llm": _by_name("provider", "The LLMs, each [llm.NAME].", registry.providers, _provider_schema),
            "processor": _by_name("type", "The processors, each [processor.NAME].", registry.processors, _type_schema),
            "store": _by_name("type", "The stores, each [store.NAME].", registry.stores, _store_schema),
            "route": {
                "type": "array",
                "description": "The routes, each [[route]].",
                "minItems": 1,
                "items": _route_schema(registry),
            },
        },
    }


def table_schema(config: type[Any]) -> Schema:
    """A table with the keys of the configuration class *config*, and no others."""
    keys = {field.name: (field, option_schema(field, declared)) for field, declared in options(config)}
    required = [name for name, (field, _) in keys.items() if field.default is attrs.NOTHING]
    schema: Schema = {
        "type": "object",
        "description": _first_sentence(config),
        "properties": {name: schema for name, (_, schema) in keys.items()},
        "additionalProperties": False,
    }
    return schema | ({"required": required} if required else {})


def option_schema(field: attrs.Attribute[Any], declared: Option) -> Schema:
    """One key: its type, what it means, what it accepts, its default."""
    schema = type_schema(field.type)
    match declared.validator:
        case Check() | Stated() as said:
            schema |= _plain_table(said.schema)
        case Each(validator=Check() as said):
            items = schema.get("items")
            assert isinstance(items, dict)
            schema["items"] = items | _plain_table(said.schema)
        case _:
            pass  # a check of a type's own, which says nothing of itself
    schema["description"] = meaning(declared)
    if isinstance(field.default, bool | int | float | str):
        schema["default"] = field.default
    if declared.example is not None:
        schema["examples"] = [declared.example]
    return schema


def meaning(declared: Option) -> str:
    """What a key means, and the variable that wins over it."""
    return declared.doc if declared.env is None else f"{declared.doc} `{declared.env}` in the environment wins over it."


def type_schema(kind: Any) -> Schema:
    """What TOML must hold for a key of the type *kind*."""
    origin: object = get_origin(kind)
    arguments = [argument for argument in get_args(kind) if argument is not NoneType]
    if kind in _SCALARS:
        return {"type": _SCALARS[kind]}
    if origin is Annotated:
        form = next((it for it in kind.__metadata__ if isinstance(it, WrittenAs)), None)
        return type_schema(arguments[0]) if form is None else type_schema(form.form) | _plain_table(form.schema)
    if origin in (Union, UnionType):
        return type_schema(arguments[0]) if len(arguments) == 1 else {"anyOf": [type_schema(it) for it in arguments]}
    if origin is Literal:
        return {"type": "string", "enum": arguments}
    if origin in (tuple, frozenset):
        return {"type": "array", "items": type_schema(arguments[0])}
    if origin is not None:  # a Mapping
        return {"type": "object", "additionalProperties": type_schema(arguments[1])}
    return _class_schema(kind)


def _class_schema(kind: type[Any]) -> Schema:
    if kind is Secret:
        env = {"type": "string", "description": "The environment variable that holds the value."}
        return {"type": "object", "properties": {"env": env}, "required": ["env"], "additionalProperties": False}
    if kind is Money:
        return {"type": ["string", "number"]}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"type": "string", "enum": [member.value for member in kind]}
    return table_schema(kind) if attrs.has(kind) else {}


def _by_name(key: str, doc: str, kinds: Mapping[str, Any], schema_of: Any) -> Schema:
    """Tables by name, whose further keys depend on what *key* says."""
    alternatives = [
        {
            "if": {"properties": {key: {"const": name}}, "required": [key]},
            "then": schema_of(kind),
        }
        for name, kind in sorted(kinds.items())
    ]
    table: Schema = {
        "type": "object",
        "required": [key],
        "properties": {key: {"type": "string", "enum": sorted(kinds)}},
    }
    if alternatives:
        table["allOf"] = alternatives
    return {"type": "object", "description": doc, "additionalProperties": table}


def _provider_schema(kind: ProviderType[Any]) -> Schema:
    schema = table_schema(kind.config)
    properties = schema["properties"]
    assert isinstance(properties, dict)
    if "type" in properties and kind.types:
        properties["type"] |= {"enum": sorted(kind.types)}
        properties["type"] |= {"default": kind.default_type} if kind.default_type else {}
    return schema


def _type_schema(kind: ProcessorType[Any]) -> Schema:
    """The table of a processor: every processor's keys, and its type's, wherever they are written."""
    schema, own = table_schema(ProcessorTable), table_schema(kind.config)
    properties, own_properties = schema["properties"], own["properties"]
    assert isinstance(properties, dict)
    assert isinstance(own_properties, dict)
    short = next((field.name for field, declared in options(kind.config) if declared.fills_config_value), None)
    if short is None:
        del properties["config_value"]
    else:
        properties["config_value"] = own_properties[short]
    properties["additional_config"] |= {"properties": own_properties, "additionalProperties": False}
    return schema | {"description": own["description"], "properties": properties | own_properties}


def _store_schema(kind: StoreType[Any]) -> Schema:
    """The table of a store: every store's key, and its type's."""
    schema, own = table_schema(StoreTable), table_schema(kind.config)
    properties, own_properties = schema["properties"], own["properties"]
    required, own_required = schema["required"], own.get("required", [])
    assert isinstance(properties, dict)
    assert isinstance(own_properties, dict)
    assert isinstance(required, list)
    assert isinstance(own_required, list)
    return own | {"properties": properties | own_properties, "required": required + own_required}


def _route_schema(registry: Registry) -> Schema:
    schema = table_schema(RouteConfig)
    properties = schema["properties"]
    assert isinstance(properties, dict)
    properties["dialect"] |= {"enum": sorted(registry.dialects)}
    return schema


def _first_sentence(config: type[Any]) -> str:
    return (config.__doc__ or "").strip().partition("\n\n")[0].replace("`", "")


def _plain_table(schema: Mapping[str, object]) -> Schema:
    return {key: _plain(value) for key, value in schema.items()}


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
