"""From a file to a configuration: lines, origins, and files that are none."""

import datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import attrs
import pytest

from llmproxy_core.config_problem import shown
from llmproxy_core.dialect import Operation
from llmproxy_core.errors import ConfigError, Problem
from llmproxy_core.hookspecs import ProcessorType, hookimpl
from llmproxy_core.llm_config import HttpLLMConfig
from llmproxy_core.option import option
from llmproxy_core.plugins import Registry
from llmproxy_server.loader import MAX_FILE_BYTES, Loaded, load
from llmproxy_server.settings import Setting
from tests.registry import KeeperConfig, Plugin, never_built, registry

MINIMAL = """\
[llm.local]
provider = "demo"

[[route]]
path_prefix = "/v1"
target_llm = "local"
"""


def write(directory: Path, content: str | bytes) -> Path:
    path = directory / "config.toml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def loaded(path: Path, command_line: dict[str, object] | None = None, **env: str) -> Loaded:
    return load(path, registry(), env, command_line)


def problems(path: Path, command_line: dict[str, object] | None = None, **env: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        loaded(path, command_line, **env)
    return caught.value.problems


def test_a_file_is_loaded_with_the_origin_of_each_setting(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + "[server]\nport = 1\nmax_in_flight = 3\nlog.format = 'text'")

    found = loaded(path, {"server.log.level": "warn"}, PROXY_API_PORT="2")

    assert (found.config.server.port, found.settings["port"].origin) == (2, "PROXY_API_PORT")
    assert found.settings["max_in_flight"].origin == "config.toml"
    assert found.settings["server.log.level"].origin == "command line"
    assert found.settings["log.format"].origin == "config.toml"
    assert found.settings["host"].origin == "default"
    assert found.text is not None
    assert found.path == path
    with pytest.raises(KeyError):
        found.settings["prot"]
    assert len({it.name for it in found.settings}) > 20


def test_each_problem_has_its_line_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = MINIMAL.replace('"local"\n', '"locl"\nfoo = 1\n') + "\n[server]\nport = 'x'\n"

    assert [(it.line, it.path) for it in problems(write(tmp_path, text))] == [
        (6, "route[1].target_llm"),
        (7, "route[1].foo"),
        (10, "server.port"),
    ]


def test_a_warning_has_its_line_too(tmp_path: Path) -> None:
    found = loaded(write(tmp_path, MINIMAL + '[server]\ncors_allowed_origins = ["*"]'))

    assert [(it.line, it.path) for it in found.warnings] == [(8, "server.cors_allowed_origins")]


def test_the_environment_wins_for_every_llm_and_is_told_as_the_origin(tmp_path: Path) -> None:
    llm = '[llm."a.b"]\nprovider = "openai"\nbase_url = "http://a"\ntimeouts.first_byte_s = 3\n'
    path = write(tmp_path, llm + MINIMAL.replace("local", "a.b").replace('[llm.a.b]\nprovider = "demo"\n', ""))

    found = loaded(path, HTTP_TIMEOUT="30")
    (problem,) = problems(path, HTTP_TIMEOUT="9999999999")
    llm_config = found.config.llms["a.b"]

    assert isinstance(llm_config, HttpLLMConfig)
    assert llm_config.timeouts.first_byte_s == 30
    assert found.settings.tables == (Setting("llm.*.timeouts.first_byte_s", 30.0, "HTTP_TIMEOUT"),)
    assert problem.path == "HTTP_TIMEOUT"


def test_a_value_from_elsewhere_is_reported_with_its_origin_and_no_line(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + '[server]\nhost = "127.0.0.1"')

    (variable,) = problems(path, PROXY_API_HOST="0.0.0.0")
    (flag,) = problems(path, {"server.host": "0.0.0.0"})

    assert (variable.path, variable.line) == ("server.host", None)
    assert variable.message.endswith("(from PROXY_API_HOST in the environment)")
    assert flag.message.endswith("(from the command line)")


KEEPER = '[processor.k]\ntype = "keeper"\nconfig_value = "a"\n'


def test_the_variable_of_an_option_wins_and_is_told_as_the_origin(tmp_path: Path) -> None:
    path = write(tmp_path, KEEPER + MINIMAL + 'processors = ["k"]')

    found = loaded(path, KEEPER_TTL="1m30s", KEEPER_LABEL="b")
    config = found.config.processors["k"].config

    assert isinstance(config, KeeperConfig)
    assert (config.ttl_s, config.label) == (90, "b")
    assert found.settings.tables == (
        Setting("processor.k.ttl_s", 90.0, "KEEPER_TTL"),
        Setting("processor.k.config_value", "b", "KEEPER_LABEL"),
    )


def test_what_the_key_does_not_accept_is_told_with_the_variable(tmp_path: Path) -> None:
    path = write(tmp_path, KEEPER + MINIMAL + 'processors = ["k"]')

    found = problems(path, KEEPER_TTL="0", KEEPER_LABEL="\x07a", KEEPER_PASSWORD="\x07hunter2")

    assert {it.path: it.line for it in found} == dict.fromkeys(
        ["processor.k.ttl_s", "processor.k.config_value", "processor.k.password"]
    )
    assert all(it.message.endswith("in the environment)") for it in found)
    assert "hunter2" not in str(found)


def test_a_name_that_a_variable_gives_is_looked_up_and_told_with_it(tmp_path: Path) -> None:
    @attrs.frozen(kw_only=True)
    class Named:
        llm: str = option("An LLM.", refers_to="llm", env="NAMED_LLM")

    class Naming:
        @hookimpl
        def llmproxy_processors(self) -> list[ProcessorType[Any]]:
            return [ProcessorType("named", Named, never_built, frozenset(Operation))]

    path = write(tmp_path, '[processor.n]\ntype = "named"\nllm = "local"\n' + MINIMAL + 'processors = ["n"]')
    types = Registry.of(Plugin(), Naming())

    assert not load(path, types, {}).warnings
    with pytest.raises(ConfigError) as caught:
        load(path, types, {"NAMED_LLM": "locl"})
    assert str(caught.value) == (
        'processor.n.llm: no [llm.locl]; did you mean "local"? (defined: local) (from NAMED_LLM in the environment)'
    )


def test_a_plugin_that_could_not_be_used_is_a_warning(tmp_path: Path) -> None:
    class Broken:
        @hookimpl
        def llmproxy_stores(self) -> object:
            return [3]

    found = load(write(tmp_path, MINIMAL), Registry.of(Plugin(), Broken()), {})

    (warning,) = found.warnings
    assert warning.path == "plugins"
    assert "Broken could not be used: TypeError: expected a StoreType, got 3" in warning.message


def test_problems_of_the_environment_and_of_the_file_come_together(tmp_path: Path) -> None:
    found = problems(write(tmp_path, MINIMAL + "x = 1"), PORT="x")

    assert [it.path for it in found] == ["PORT", "route[1].x"]


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("a = ", 1, 5),
        ("[server]\nport = = 3", 2, 8),
        ("[server]\nport = 1\nport = 2", 3, 9),
        ("[a]\n[a]", 2, 3),
        ("a = \x00", 1, 5),
        ("a = [1,\n2", 2, 2),
        ('a = "x', 1, 7),
    ],
)
def test_a_syntax_error_has_line_and_column(tmp_path: Path, text: str, line: int, column: int) -> None:
    (problem,) = problems(write(tmp_path, text))

    assert problem.message.startswith("is not valid TOML: ")
    assert problem.line == line
    assert problem.column is not None
    assert abs(problem.column - column) <= 1
    assert str(problem).isprintable()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no [[route]]"),
        (b"# nothing\n", "no [[route]]"),
        (b"\xff\xfe\x00", "is not UTF-8"),
        (b"a = 1\nb = '\xff'", "is not UTF-8"),
        (b"#" * (MAX_FILE_BYTES + 1), "is longer than"),
        (b"a = " + b"[" * 10_000, "nested too deep"),
        (b"a = " + b"9" * 5_000, "too many digits"),
        (MINIMAL.encode()[:-12], "is not valid TOML"),
        (b'llm = "a"\nroute = 3', "expected tables [llm.NAME]"),
    ],
    ids=["empty", "comment", "binary", "half binary", "long", "deep", "digits", "half", "wrong types"],
)
def test_a_file_that_is_none_is_told_as_such(tmp_path: Path, content: bytes, message: str) -> None:
    assert message in str(problems(write(tmp_path, content))[0])


def test_the_line_of_what_is_not_utf_8_is_told(tmp_path: Path) -> None:
    (problem,) = problems(write(tmp_path, b"a = 1\nb = '\xc3\xa4\xff'"))

    assert (problem.line, problem.column) == (2, 7)


def test_a_file_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    assert problems(tmp_path / "none.toml") == (Problem("", "there is no such file"),)
    assert problems(tmp_path) == (Problem("", "is a directory, not a file"),)
    assert problems(tmp_path / "a\0b") == (Problem("", "cannot be read: not a path"),)
    assert "cannot be read" in problems(write(tmp_path, "") / "below")[0].message


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = write(tmp_path, b"\xef\xbb\xbf" + (MINIMAL + "x = 1").replace("\n", "\r\n").encode())

    assert [(it.path, it.line) for it in problems(path)] == [("route[1].x", 7)]


def test_certificates_are_looked_for_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("c")
    tls = '[server]\ntls_certificate = "cert.pem"\ntls_key = "key.pem"\n'
    path = write(tmp_path, MINIMAL + tls)

    (missing,) = problems(path)
    (tmp_path / "key.pem").write_text("k")
    (found,) = problems(path)

    assert (missing.path, missing.line) == ("server.tls_key", 9)
    assert missing.message == f'there is no file "{shown(str(tmp_path / "key.pem"))[1:-1]}"'
    assert (found.path, found.line) == ("server.tls_certificate", 8)
    assert found.message.startswith("expected a PEM file"), "the file is found, and is no certificate"


@pytest.mark.parametrize(("key", "told"), [('"key.pem"', ["server.tls_key"]), ("7", [])], ids=["none", "no name"])
def test_a_certificate_that_will_not_do_is_told_with_all_other_mistakes(
    key: str, told: list[str], tmp_path: Path
) -> None:
    (tmp_path / "cert.pem").write_text("c")
    path = write(tmp_path, MINIMAL + f'x = 1\n[server]\ntls_certificate = "cert.pem"\ntls_key = {key}\nprot = 1\n')

    found = {it.path for it in problems(path)}

    assert found >= {"route[1].x", "server.prot", *told}


def test_a_long_file_that_is_wrong_throughout_is_told_in_bearable_time(tmp_path: Path) -> None:
    """500 routes with two mistakes each; trying every prefix for every problem would take minutes."""
    routes = "".join(f'[[route]]\npath_prefix = "/r{n}"\ntarget_llm = "locl"\nfoo = 1\n' for n in range(500))
    started = perf_counter()

    found = problems(write(tmp_path, MINIMAL + routes))

    assert len(found) == 1000
    assert (found[0].path, found[0].line) == ("route[2].foo", 10)
    assert perf_counter() - started < 20


def test_dates_are_no_strings(tmp_path: Path) -> None:
    (problem,) = problems(write(tmp_path, MINIMAL + f"[server]\nhost = {datetime.date(2026, 1, 2)}"))

    assert problem.message == "expected a string, got a date"
