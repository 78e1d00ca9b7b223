"""What a reload would change, and what it would lose."""

from collections.abc import Mapping
from typing import Any

import attrs
import llmproxy_cache
import llmproxy_cost_limit
import pytest

from llmproxy_core.config import Config, structure
from llmproxy_core.dialect import Operation
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.hookspecs import ProcessorType, hookimpl
from llmproxy_core.option import option
from llmproxy_core.plugins import Registry
from llmproxy_core.processor import Processor
from llmproxy_core.services import Services
from llmproxy_server.difference import Difference, difference
from tests.proxy import STANDARD_PLUGINS, openai_at, with_server
from tests.registry import Keeping

REGISTRY = Registry.of(*STANDARD_PLUGINS, llmproxy_cache, llmproxy_cost_limit)
NOWHERE = "http://127.0.0.1:9/v1"
ENV = {"KEY": "sk-old-0123456789", "OTHER": "sk-new-0123456789"}
BASE: dict[str, Any] = {
    **openai_at("http://127.0.0.1:9/v1"),
    "processor": {
        "answers": {"type": "cache"},
        "budget": {"type": "cost_limit", "daily_usd": "5", "store": "money"},
    },
    "store": {"money": {"type": "memory"}},
    "route": [{"path_prefix": "/v1", "target_llm": "openai", "processors": ["budget", "answers"]}],
}


def config(mapping: dict[str, Any]) -> Config:
    return structure(mapping, REGISTRY, ENV)[0]


def found(new: dict[str, Any], old: dict[str, Any] = BASE) -> Difference:
    return difference(config(old), config(new))


def changed(table: str, name: str, mapping: dict[str, Any] = BASE, **keys: object) -> dict[str, Any]:
    """*mapping* with *keys* in one of its tables."""
    return {**mapping, table: {**mapping[table], name: {**mapping[table][name], **keys}}}


def test_equal_configurations_differ_in_nothing() -> None:
    same = found({**BASE, "server": {"port": 3000}})  # the default, written out

    assert same.is_nothing
    assert (same.drops, same.restart) == ((), ())


def test_tables_are_added_removed_and_changed() -> None:
    new = changed("llm", "openai", model="m")
    new["llm"]["more"] = {"provider": "openai", "base_url": "http://127.0.0.1:9/v2"}
    new["route"] = [*BASE["route"], {"path_prefix": "/more", "target_llm": "more"}]

    assert [str(it) for it in found(new).changes] == [
        "route /more added",
        "llm.openai changed (model)",
        "llm.more added",
    ]
    assert [str(it) for it in found(BASE, new).changes] == [
        "route /more removed",
        "llm.openai changed (model)",
        "llm.more removed",
    ]


def test_a_changed_key_has_its_values_as_toml_has_them() -> None:
    new = with_server(changed("processor", "answers", ttl_s=60), log={"level": "debug"}, allowed_hosts=["a.example"])

    keys = {it.table: dict(it.keys) for it in found(new).changes}

    assert keys["server"] == {"allowed_hosts": ("[]", '["a.example"]'), "log.level": ('"info"', '"debug"')}
    assert list(keys["processor.answers"]) == ["ttl_s"]
    assert keys["processor.answers"]["ttl_s"][1] == "60.0"


@attrs.frozen
class Asking:
    headers: Mapping[str, str] = option("Headers, of a plugin's own kind.", default=FrozenMap())


def never_built(config: Asking, services: Services) -> Processor:
    raise AssertionError("nothing is built for a difference")


class Plugin:
    @hookimpl
    def llmproxy_processors(self) -> list[ProcessorType[Any]]:
        return [ProcessorType("asking", Asking, never_built, frozenset(Operation))]


def test_what_a_plugin_calls_headers_is_its_own() -> None:
    registry = Registry.of(*STANDARD_PLUGINS, Plugin())
    tables = [{"a": {"type": "asking", "headers": {"x": x}}} for x in "ab"]
    old, new = (structure({**openai_at(NOWHERE), "processor": it}, registry, {})[0] for it in tables)

    (change,) = difference(old, new).changes

    assert dict(change.keys) == {"headers": ('{"x":"a"}', '{"x":"b"}')}


def test_a_secret_is_a_change_that_is_not_shown() -> None:
    old = changed("llm", "openai", token_env="KEY", headers={"x-team": {"env": "KEY"}})
    new = changed("llm", "openai", token_env="OTHER", headers={"x-team": {"env": "OTHER"}})

    difference = found(new, old)

    (change,) = difference.changes
    assert {"token", "headers"} <= set(change.keys)
    assert "sk-" not in repr(difference)


def test_a_secret_that_was_renewed_under_the_same_name_is_a_change() -> None:
    old = changed("llm", "openai", token_env="KEY")

    renewed = difference(config(old), structure(old, REGISTRY, {"KEY": "sk-renewed-0123456"})[0])

    assert [str(it) for it in renewed.changes] == ["llm.openai changed (token)"]


def test_what_only_a_restart_changes_is_told_apart() -> None:
    new = with_server(BASE, port=1, workers=1, own_endpoints=False, max_in_flight=7)

    restarting = found(new)

    assert [it.name for it in restarting.restart] == ["server.port", "server.own_endpoints"]
    assert [str(it) for it in restarting.taking_effect] == ["server changed (max_in_flight)"]
    assert not restarting.is_nothing


def test_switching_tls_on_or_off_needs_a_restart_and_another_certificate_does_not() -> None:
    one = {"tls_certificate": "/a.pem", "tls_key": "/a.key"}
    other = {"tls_certificate": "/b.pem", "tls_key": "/b.key"}

    assert [it.name for it in found(with_server(BASE, **one)).restart] == ["server.tls_certificate", "server.tls_key"]
    assert [it.name for it in found(BASE, with_server(BASE, **one)).restart] == [
        "server.tls_certificate",
        "server.tls_key",
    ]
    assert not found(with_server(BASE, **one), with_server(BASE, **other)).restart


COUNTED = "what processor.budget counted (its limits begin anew)"
LOST = {
    "nothing of what stays": (with_server(BASE, max_in_flight=7), []),
    "a store's content": (
        {**changed("processor", "budget", store="coins"), "store": {"coins": {"type": "memory"}}},
        [
            f"the content of store.money, which is in memory alone: {COUNTED}",
            "the answers of route /v1 that processor.answers kept: it may answer otherwise now",
        ],
    ),
    "what was counted, by another store": (
        changed("processor", "budget", store="memory"),
        [
            f"{COUNTED}: it stays in store.money, and is not asked for",
            "the answers of route /v1 that processor.answers kept: it may answer otherwise now",
        ],
    ),
    "answers, by another LLM": (
        changed("llm", "openai", base_url="http://127.0.0.1:10/v1"),
        ["the answers of route /v1 that processor.answers kept: it may answer otherwise now"],
    ),
    "connections": (
        changed("llm", "openai", pool={"max_connections": 3}),
        [
            "the answers of route /v1 that processor.answers kept: it may answer otherwise now",
            "the idle connections of llm.openai",
        ],
    ),
}


@pytest.mark.parametrize("case", LOST)
def test_what_is_lost(case: str) -> None:
    new, drops = LOST[case]

    assert list(found(new).drops) == drops


def test_a_store_that_processes_share_loses_nothing() -> None:
    registry = Registry.of(*STANDARD_PLUGINS[:-1], Keeping())
    mapping = {
        **openai_at("http://127.0.0.1:9/v1"),
        "store": {"files": {"type": "disk", "path": "a.db"}},
        "processor": {"keeps": {"type": "keeper", "store": "files"}},
        "route": [{"path_prefix": "/v1", "target_llm": "openai", "processors": ["keeps"]}],
    }
    old = structure(mapping, registry, {})[0]
    new = structure(changed("store", "files", mapping, path="b.db"), registry, {})[0]

    assert not difference(old, new).drops
