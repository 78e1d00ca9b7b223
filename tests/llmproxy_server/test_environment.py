"""The environment and the command line over the file."""

import sys
from pathlib import Path
from typing import Any

import pytest

from llmproxy_server.environment import Overlaid, overlay, read_environment
from llmproxy_server.variables import read_seconds
from tests.registry import registry

LLM = {"provider": "openai", "base_url": "http://127.0.0.1:1"}


def laid(document: dict[str, Any], command_line: dict[str, object] | None = None, /, **env: str) -> Overlaid:
    return overlay(document, registry(), env, command_line or {})


def test_the_environment_wins_over_the_file_and_the_command_line_over_both() -> None:
    document = {"server": {"host": "a", "port": 1, "log": {"level": "warn", "format": "json"}}}

    found = laid(document, {"server.port": 3, "server.host": None}, PROXY_API_HOST="b", PORT="2", LOG_LEVEL="ERROR")

    assert found.document["server"] == {"host": "b", "port": 3, "log": {"level": "error", "format": "json"}}
    assert found.origins == {
        "server.host": "PROXY_API_HOST",
        "server.port": "command line",
        "server.log.level": "LOG_LEVEL",
    }
    assert document["server"]["port"] == 1, "what was given is not changed"


def test_our_own_port_variable_wins_over_the_platforms() -> None:
    found = laid({}, PORT="1", PROXY_API_PORT="2")

    assert found.document == {"server": {"port": 2}}
    assert found.origins == {"server.port": "PROXY_API_PORT"}


def test_an_empty_variable_is_not_set_and_host_is_not_read() -> None:
    found = laid({}, PORT="", PROXY_API_PORT="  ", HOST="example.com")

    assert found.document == {}
    assert not found.problems


@pytest.mark.parametrize(
    ("env", "level"),
    [
        ({"PROXY_API_DEBUG": "true"}, "debug"),
        ({"PROXY_API_DEBUG": "1", "LOG_LEVEL": "trace"}, "trace"),
        ({"PROXY_API_DEBUG": "off"}, None),
    ],
)
def test_debug_is_the_level_debug_where_no_level_is_set(env: dict[str, str], level: str | None) -> None:
    server: Any = overlay({}, registry(), env, {}).document["server"]

    assert server.get("log", {}).get("level") == level


def test_time_outs_and_pools_go_to_every_llm_over_http_and_win_over_the_file() -> None:
    document = {
        "llm": {
            "plain": LLM,
            "own": {**LLM, "timeouts": {"first_byte_s": 1, "idle_s": 2}, "pool": {"idle_s": 3}},
            "demo": {"provider": "demo"},
            "unknown": {"provider": "x"},
            "no table": 3,
        }
    }

    found = laid(document, HTTP_TIMEOUT="1m30s", MAX_IDLE_CONNS="7", MAX_IDLE_CONNS_PER_HOST="0", IDLE_CONN_TIMEOUT="9")

    llms: Any = found.document["llm"]
    pool = {"max_connections": 7, "max_connections_per_host": 0}
    assert llms["plain"] == {**LLM, "timeouts": {"first_byte_s": 90.0}, "pool": {**pool, "idle_s": 9.0}}
    assert llms["own"]["timeouts"] == {"first_byte_s": 90.0, "idle_s": 2}
    assert llms["own"]["pool"] == {**pool, "idle_s": 9.0}
    assert llms["demo"] == {"provider": "demo"}
    assert found.origins["llm.plain.timeouts.first_byte_s"] == "HTTP_TIMEOUT"
    assert found.origins["llm.own.timeouts.first_byte_s"] == "HTTP_TIMEOUT"
    assert found.table_keys[0] == ("llm.*.timeouts.first_byte_s", 90.0, "HTTP_TIMEOUT")
    assert not laid({"llm": {"demo": {"provider": "demo"}}}, HTTP_TIMEOUT="3").table_keys, "it holds for none"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "x"),
        ("PORT", "-1"),
        ("PORT", "65536"),
        ("PORT", "٣"),
        ("PROXY_API_PORT", "3000\x1b[2J"),
        ("PROXY_API_DEBUG", "maybe"),
        ("LOG_LEVEL", "loud"),
        ("HTTP_TIMEOUT", "-3"),
        ("HTTP_TIMEOUT", "soon"),
        ("HTTP_TIMEOUT", "1e99"),
        ("HTTP_TIMEOUT", "999999999h"),
        ("HTTP_TIMEOUT", "nan"),
        ("MAX_IDLE_CONNS", "1.5"),
        ("MAX_IDLE_CONNS_PER_HOST", "9" * 5000),
        ("IDLE_CONN_TIMEOUT", "0"),
    ],
)
def test_a_hostile_value_is_a_problem_that_names_the_variable(name: str, value: str) -> None:
    (problem,) = overlay({"llm": {"a": LLM}}, registry(), {name: value}, {}).problems

    assert problem.path == name
    assert problem.message.startswith("expected ")
    assert str(problem).isprintable()
    assert len(str(problem)) < 200


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("90s", 90), ("1m30s", 90), ("2h", 7200), ("500ms", 0.5), ("1.5m", 90), ("0", 0)],
)
def test_a_duration_is_seconds_or_as_go_writes_it(text: str, seconds: float) -> None:
    assert read_seconds(text) == seconds


@pytest.mark.parametrize(
    "document", [{"server": 3}, {"server": {"log": 3}}, {"llm": 3}, {"llm": {"a": {"provider": 3}}}]
)
def test_a_document_that_is_wrong_is_left_for_the_reader_to_report(document: dict[str, Any]) -> None:
    found = laid(document, LOG_LEVEL="info", HTTP_TIMEOUT="3")

    assert not found.problems


# -- variables of options --------------------------------------------------------------------------------------------

KEEPER = {"type": "keeper"}


def keeper(table: dict[str, Any], **env: str) -> Any:
    """What the table of a processor of the type `keeper` becomes."""
    document: Any = laid({"processor": {"k": table}}, **env).document
    return document["processor"]["k"]


@pytest.mark.parametrize(
    ("variable", "text", "key", "value"),
    [
        ("KEEPER_ENABLED", "false", "enabled", False),
        ("KEEPER_ENABLED", "1", "enabled", True),
        ("KEEPER_TTL", "1m30s", "ttl_s", 90.0),
        ("KEEPER_TTL", "90", "ttl_s", 90.0),
        ("KEEPER_SHARE", "-0.5", "share", -0.5),
        ("KEEPER_MOST", "12", "most", 12),
        ("KEEPER_MOST", "-1", "most", -1),
        ("KEEPER_LABEL", " 12 ", "label", "12"),
    ],
)
def test_a_variable_is_read_as_its_key_says(variable: str, text: str, key: str, value: object) -> None:
    found = keeper(KEEPER, **{variable: text})

    assert found == {**KEEPER, key: value}
    assert type(found[key]) is type(value)


def test_a_variable_wins_over_the_file_in_every_table_of_its_type() -> None:
    document: dict[str, Any] = {
        "processor": {"a": KEEPER, "b": {**KEEPER, "ttl_s": 1}, "other": {"type": "openai_chat", "model": "m"}},
        "store": {"d": {"type": "disk", "path": "a"}, "m": {"type": "memory"}},
    }

    found = laid(document, KEEPER_TTL="2s", DISK_PATH="b")

    assert found.document == {
        "processor": {
            "a": {**KEEPER, "ttl_s": 2.0},
            "b": {**KEEPER, "ttl_s": 2.0},
            "other": document["processor"]["other"],
        },
        "store": {"d": {"type": "disk", "path": "b"}, "m": {"type": "memory"}},
    }
    assert found.origins == {
        "processor.a.ttl_s": "KEEPER_TTL",
        "processor.b.ttl_s": "KEEPER_TTL",
        "store.d.path": "DISK_PATH",
    }
    assert found.table_keys[0] == ("processor.a.ttl_s", 2.0, "KEEPER_TTL")
    assert document["processor"]["b"]["ttl_s"] == 1, "what was given is not changed"


@pytest.mark.parametrize(
    ("table", "changed"),
    [
        ({"additional_config": {"label": "a", "most": 1}}, {"additional_config": {"label": "b", "most": 1}}),
        ({"config_value": "a"}, {"config_value": "b"}),
        ({"label": "a", "config_value": "c"}, {"label": "b", "config_value": "c"}),
        ({"label": "a", "additional_config": {"label": "c"}}, {"label": "b", "additional_config": {"label": "c"}}),
        ({"additional_config": {}}, {"additional_config": {}, "label": "b"}),
        ({"additional_config": 3}, {"additional_config": 3, "label": "b"}),
    ],
    ids=["additional_config", "config_value", "twice", "twice more", "nowhere", "wrong"],
)
def test_a_variable_wins_wherever_the_key_is_written(table: dict[str, Any], changed: dict[str, Any]) -> None:
    """A key that the file has twice stays so, for the reader to report."""
    assert keeper({**KEEPER, **table}, KEEPER_LABEL="b") == {**KEEPER, **changed}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("KEEPER_ENABLED", "maybe", 'expected true or false, got "maybe" in the environment'),
        (
            "KEEPER_TTL",
            "soon",
            'expected seconds, or a duration such as "90s" or "1m30s", got "soon" in the environment',
        ),
        ("KEEPER_SHARE", "1m", 'expected a number, got "1m" in the environment'),
        ("KEEPER_SHARE", "nan", 'expected a number, got "nan" in the environment'),
        ("KEEPER_MOST", "1.5", 'expected an integer, got "1.5" in the environment'),
        ("KEEPER_MOST", "9" * 5000, f'expected an integer, got "{"9" * 59}…" in the environment'),
    ],
)
def test_a_wrong_value_of_an_option_is_told_once_with_its_variable(name: str, value: str, message: str) -> None:
    found = laid({"processor": {"a": KEEPER, "b": KEEPER}}, **{name: value})

    assert [(it.path, it.message) for it in found.problems] == [(name, message)]


def test_the_variable_of_a_type_that_no_table_has_is_not_looked_at() -> None:
    """It may be another program's: a plugin that is installed and not used must not stop the start."""
    found = laid({"processor": {"a": {"type": "guard"}, "b": 3, "c": {"type": 3}, "d": {"type": "x"}}}, KEEPER_TTL="x")

    assert not found.problems
    assert not laid({"processor": 3, "store": [1]}, KEEPER_TTL="x", DISK_PATH="a").problems


def test_what_is_secret_is_kept_out_of_what_people_see() -> None:
    found = laid({"processor": {"k": KEEPER}}, KEEPER_PASSWORD="hunter2")

    assert found.table_keys == (("processor.k.password", "***", "KEEPER_PASSWORD"),)


# -- .env ------------------------------------------------------------------------------------------------------------


def test_a_dot_env_file_fills_what_is_unset(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text('A=1\nB="two # words"\nexport C=3\n# D=4\nE\nF=${A}\n')

    found = read_environment({"A": "set"}, tmp_path)

    assert found.variables == {"A": "set", "B": "two # words", "C": "3", "F": "${A}"}


def test_no_dot_env_file_is_no_problem(tmp_path: Path) -> None:
    found = read_environment({"A": "1"}, tmp_path)

    assert (found.variables, found.problems) == ({"A": "1"}, ())


def test_each_line_of_the_env_file_that_is_no_variable_is_told_by_its_place_alone(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\nsk-secret and more\n\nB 2\nC=3\n")

    found = read_environment({}, tmp_path)

    assert [str(it) for it in found.problems] == [
        f".env line {line}: is no variable; expected NAME=VALUE" for line in (2, 4)
    ]


def test_a_dot_env_file_that_is_no_text_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"A=\xff\xfe\x00secret")

    found = read_environment({"B": "1"}, tmp_path)

    assert [str(it) for it in found.problems] == [".env: cannot be read: it is not UTF-8"]
    assert found.variables == {"B": "1"}


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_dot_env_file_that_cannot_be_opened_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / ".env").symlink_to(".env")

    assert [str(it) for it in read_environment({}, tmp_path).problems] == [
        ".env: cannot be read: Too many levels of symbolic links"
    ]
