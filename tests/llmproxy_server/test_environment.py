"""The environment and the command line over the file."""

from pathlib import Path
from typing import Any

import pytest

from llmproxy_core.errors import ConfigError
from llmproxy_server.environment import Overlaid, overlay, read_environment, read_seconds
from tests.registry import registry

LLM = {"provider": "openai", "base_url": "http://127.0.0.1:1"}


def laid(document: dict[str, Any], command_line: dict[str, object] | None = None, **env: str) -> Overlaid:
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
    assert found.llm_keys[0] == ("timeouts.first_byte_s", 90.0, "HTTP_TIMEOUT")
    assert not laid({"llm": {"demo": {"provider": "demo"}}}, HTTP_TIMEOUT="3").llm_keys, "it holds for none"


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


# -- .env ------------------------------------------------------------------------------------------------------------


def test_a_dot_env_file_fills_what_is_unset(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text('A=1\nB="two # words"\nexport C=3\n# D=4\nE\nF=${A}\n')

    found = read_environment({"A": "set"}, tmp_path)

    assert found == {"A": "set", "B": "two # words", "C": "3", "F": "${A}"}


def test_no_dot_env_file_is_no_problem(tmp_path: Path) -> None:
    assert read_environment({"A": "1"}, tmp_path) == {"A": "1"}


def test_a_dot_env_file_that_is_no_text_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"A=\xff\xfe\x00secret")

    with pytest.raises(ConfigError, match=r"^\.env: cannot be read: it is not UTF-8$"):
        read_environment({}, tmp_path)
