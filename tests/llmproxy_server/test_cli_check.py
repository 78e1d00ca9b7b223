"""`llmproxy check`: the route table of a file that is right, every problem of one that is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from llmproxy_server.cli import llmproxy as command
from tests.llmproxy_server.cli_process import install_plugin, llmproxy

SECRET = "sk-abcdefgh12345678"

WHOLE = """
[server]
port = 8080
max_in_flight = 5

[llm.openai]
provider = "openai"
base_url = "https://api.openai.com/v1"
token_env = "OPENAI_API_KEY"
headers = { "x-team" = { env = "TEAM_KEY" } }
models = { "gpt-4" = "gpt-4o", "gpt-*" = "gpt-4o-mini" }

[llm.local]
provider = "openai"
base_url = "http://localhost:11434"

[llm.best]
provider = "by_model"
members = ["openai", "local"]

[processor.first]
type = "mark_chat"

[processor.second]
type = "mark_all"

[[route]]
path_prefix = "/v1"
target_llm = "best"
processors = ["second", "first"]

[[route]]
path_prefix = "/local"
target_llm = "local"
operations = ["chat", "opaque"]
processors = ["first"]
allow_streaming = false
"""

MARKS = """
from attrs import frozen
from llmproxy_core import Operation, ProcessorType, hookimpl

@frozen
class MarkConfig:
    pass

class Mark:
    def __init__(self, config, services):
        pass

    async def __call__(self, exchange, call_next):
        return await call_next(exchange)

@hookimpl
def llmproxy_processors():
    chat = frozenset({Operation.CHAT})
    return [
        ProcessorType("mark_chat", MarkConfig, Mark, chat, skippable=True),
        ProcessorType("mark_all", MarkConfig, Mark, frozenset(Operation), skippable=True),
    ]
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of its own to run in, with the processor types mark_chat and mark_all on the path."""
    install_plugin(tmp_path, "marks", MARKS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("TEAM_KEY", SECRET[::-1])
    return tmp_path


def check(text: str, name: str = "config.toml") -> Result:
    Path(name).write_text(text)
    return CliRunner().invoke(command, ["check", name])


def rows(result: Result, start: str) -> dict[str, str]:
    """The rows of the block that begins with the line *start*: their first cells, and what follows these."""
    lines = iter(result.stdout.splitlines())
    assert start in lines, result.output
    block = []
    for line in lines:
        if not line:
            break
        block.append(line.split("  ", 2)[1:])
    return {key.strip(): value.strip() for key, value in (row if len(row) == 2 else (*row, "") for row in block)}


# -- a file that is right --------------------------------------------------------------------------------------------


def test_the_first_line_says_that_the_file_is_valid_and_counts(here: Path) -> None:
    result = check(WHOLE)

    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.splitlines()[0] == "config.toml is valid: 2 routes, 3 LLMs, 2 processors, 0 warnings"


def test_each_operation_of_a_route_has_its_chain_in_order(here: Path) -> None:
    result = check(WHOLE)

    route = rows(result, "/v1 -> best")
    assert route["chat"] == "second -> first -> best"
    assert route["embeddings"] == "second -> best  (passes by first)"
    assert route["models"] == "second -> the list in the configuration (1 name)  (passes by first)"
    assert "opaque" not in route


def test_a_route_that_lists_operations_serves_those_alone(here: Path) -> None:
    result = check(WHOLE)

    route = rows(result, "/local -> local")
    assert {"chat", "opaque"} <= set(route)
    assert {"embeddings", "models"} & set(route) == set()
    assert route["answers"] == "plain only"
    assert "openai" in route["clients speak"].split(", ")


def test_an_llm_has_its_provider_url_key_and_models(here: Path) -> None:
    result = check(WHOLE)

    route = rows(result, "/v1 -> best")
    assert route["llm.best"] == "by_model of openai, local; its members' models"
    assert route["llm.openai"] == (
        "openai (chat); https://api.openai.com/v1; key OPENAI_API_KEY (set); "
        "models gpt-4 -> gpt-4o, gpt-* -> gpt-4o-mini"
    )
    assert route["llm.local"] == "openai (chat); http://localhost:11434/v1; no key; any model"


def test_no_secret_is_printed(here: Path) -> None:
    result = check(WHOLE)

    assert SECRET not in result.output
    assert SECRET[::-1] not in result.output


def test_overridden_settings_have_their_origin(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROXY_API_PORT", "9000")
    (here / ".env").write_text("LOG_LEVEL=warn\n")

    settings = rows(check(WHOLE), "settings that are given")

    assert {name: row.split() for name, row in settings.items()} == {
        "server.port": ["9000", "from", "PROXY_API_PORT"],
        "server.max_in_flight": ["5", "from", "config.toml"],
        "server.log.level": ['"warn"', "from", "LOG_LEVEL"],
    }


def test_warnings_come_last_with_their_line(here: Path) -> None:
    result = check(WHOLE + '[llm.unused]\nprovider = "demo"\n')

    assert result.exit_code == 0
    *_, last = result.stdout.splitlines()
    assert last.startswith(f"warning: line {WHOLE.count(chr(10)) + 1}: llm.unused: ")


GROUP = """
[llm.one]
provider = "openai"
base_url = "https://api.openai.com/v1"
models = { smart = "gpt-4o", odd = "claude-opus-9", other = "gpt-4o-mini" }
[llm.two]
provider = "openai"
base_url = "http://127.0.0.1:11434/v1"
models = { smart = "llama3.2", odd = "whatever" }
[llm.all]
provider = "fallback"
members = ["one", "two"]
[[route]]
path_prefix = "/v1"
target_llm = "all"
"""


def test_models_that_members_of_a_group_do_not_know_are_warned_of(here: Path) -> None:
    """What a server of the operator's own has is his to know."""
    result = check(GROUP)

    assert result.exit_code == 0
    unknown, unserved = [line for line in result.stdout.splitlines() if line.startswith("warning:")]
    assert unknown.startswith('warning: llm.all: the provider of "one" is not known to have the model "claude-opus-9"')
    assert unserved == 'warning: llm.all: "two" does not serve the model "other", and is passed over for it'


# -- a file that is wrong --------------------------------------------------------------------------------------------

THREE_PROBLEMS = """
[llm.openai_chat]
provider = "openai"
base_url = "ftp://example.com"

[[route]]
path_prefix = "/v1"
target_llm = "opnai_chat"
processors = ["cost"]
"""


def test_every_problem_is_named_at_once_with_line_place_and_nearest_name(here: Path) -> None:
    result = check(THREE_PROBLEMS)

    assert result.exit_code == 1
    assert result.stdout == ""
    first, *problems = result.stderr.splitlines()
    assert first == "config.toml has 3 problems:"
    assert [problem[:2] for problem in problems] == ["  "] * 3
    assert "line 4: llm.openai_chat.base_url: " in problems[0]
    assert 'line 8: route[1].target_llm: no [llm.opnai_chat]; did you mean "openai_chat"?' in problems[1]
    assert "line 9: route[1].processors[1]: no [processor.cost]; " in problems[2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = 1\n[server\n", "line 2, column 8: is not valid TOML"),
        ("", "route: no [[route]]"),
        (WHOLE.replace("OPENAI_API_KEY", "NO_SUCH_KEY"), "environment variable NO_SUCH_KEY is not set"),
    ],
    ids=["syntax", "empty", "key"],
)
def test_a_problem_ends_the_check_with_1(text: str, said: str, here: Path) -> None:
    result = check(text)

    assert result.exit_code == 1
    assert "config.toml has 1 problem:\n  " in result.stderr
    assert said in result.stderr


def test_an_empty_file_name_is_no_directory(here: Path) -> None:
    """An unset variable in a script: `llmproxy check "$FILE"`."""
    result = CliRunner().invoke(command, ["check", ""])

    assert (result.exit_code, result.stderr) == (1, "llmproxy: the name of the configuration file is empty\n")


def test_a_file_that_is_not_there_is_a_problem(here: Path) -> None:
    result = CliRunner().invoke(command, ["check", "nosuch.toml"])

    assert (result.exit_code, result.stderr) == (1, "nosuch.toml has 1 problem:\n  there is no such file\n")


def test_what_a_variable_sets_for_every_llm_is_shown_with_its_origin(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_TIMEOUT", "1m30s")

    given = rows(check(WHOLE), "settings that are given")

    assert given["llm.*.timeouts.first_byte_s"] == "90.0          from HTTP_TIMEOUT".replace("          ", "  ")


OPTIONS = """
from attrs import frozen
from llmproxy_core import Operation, ProcessorType, hookimpl, option

@frozen
class KeptConfig:
    ttl_s: float = option("How long.", default=60.0, env="KEPT_TTL")

class Kept:
    def __init__(self, config, services):
        pass

    async def __call__(self, exchange, call_next):
        return await call_next(exchange)

@hookimpl
def llmproxy_processors():
    return [ProcessorType("kept", KeptConfig, Kept, frozenset(Operation), skippable=True)]
"""
KEPT = """
[llm.a]
provider = "demo"
[processor.keep]
type = "kept"
ttl_s = 1
[[route]]
path_prefix = "/v1"
target_llm = "a"
processors = ["keep"]
"""


def test_what_a_variable_sets_for_a_processor_is_shown_with_its_origin(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin(here, "options", OPTIONS)
    monkeypatch.setenv("KEPT_TTL", "1m30s")

    given = rows(check(KEPT), "settings that are given")

    assert given == {"processor.keep.ttl_s": "90.0  from KEPT_TTL"}


def test_a_wrong_variable_of_a_processor_is_a_problem(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin(here, "options", OPTIONS)
    monkeypatch.setenv("KEPT_TTL", "soon")

    result = check(KEPT)

    assert result.exit_code == 1
    assert 'KEPT_TTL: expected seconds, or a duration such as "90s" or "1m30s", got "soon"' in result.stderr


# -- plugins that could not be used ----------------------------------------------------------------------------------

BROKEN = "raise RuntimeError('half installed')"
NEEDS = """
[llm.a]
provider = "demo"
[processor.lost]
type = "lost"
[[route]]
path_prefix = "/v1"
target_llm = "a"
"""


def test_a_broken_plugin_is_a_warning_that_names_its_distribution(here: Path) -> None:
    install_plugin(here, "broken", BROKEN)

    result = check(WHOLE)

    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].endswith(", 1 warning")
    assert result.stdout.splitlines()[-1] == (
        "warning: plugins: llmproxy_broken of llmproxy-broken could not be used: "
        "cannot be imported (RuntimeError: half installed)"
    )


def test_what_no_route_needs_of_a_broken_plugin_is_left_out_with_a_warning(here: Path) -> None:
    install_plugin(here, "broken", BROKEN)

    result = check(NEEDS)

    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "config.toml is valid: 1 route, 1 LLM, 0 processors, 2 warnings"
    (left_out,) = [line for line in result.stdout.splitlines() if "processor.lost.type" in line]
    assert left_out.startswith('warning: line 5: processor.lost.type: no processor type "lost"')
    assert "llmproxy_broken of llmproxy-broken: cannot be imported" in left_out


def test_what_a_route_needs_of_a_broken_plugin_is_a_problem_that_names_it(here: Path) -> None:
    install_plugin(here, "broken", BROKEN)

    result = check(NEEDS + 'processors = ["lost"]\n')

    assert result.exit_code == 1
    assert result.stderr.startswith("config.toml has 1 problem:\n  line 5: processor.lost.type: no processor type")
    assert "llmproxy_broken of llmproxy-broken: cannot be imported (RuntimeError: half installed)" in result.stderr


REFUSES = """
from llmproxy_core import ConfigError, LLMConfig, Problem, ProviderType, hookimpl

def build(config, services):
    raise ConfigError([Problem("models", "this provider wants none")])

@hookimpl
def llmproxy_providers():
    return [ProviderType("refuses", LLMConfig, build)]
"""


def test_what_a_factory_refuses_is_found_too_with_its_line(here: Path) -> None:
    install_plugin(here, "refuses", REFUSES)
    table = '[llm.picky]\nprovider = "refuses"\nmodels = ["a"]\n[[route]]\npath_prefix = "/v1"\ntarget_llm = "picky"\n'

    result = check(table)

    assert result.exit_code == 1
    assert result.stderr == "config.toml has 1 problem:\n  line 3: llm.picky.models: this provider wants none\n"


TELLS = """
import attrs
from llmproxy_core import ConfigError, Operation, Problem, ProcessorType, Secret, hookimpl, option

@attrs.frozen
class Telling:
    key: Secret = option("A key.")
    how: str = option("How it fails.")
    mode: str = option("A secret too.", default="", secret=True, validator=lambda it: never(it))
    low: int = option("Below high.", default=0)
    high: int = option("Above low.", default=1)

    def __attrs_post_init__(self):
        if self.low > self.high:
            raise ValueError("expected low below high")
        if self.how in ("unsaid", "unsaid value"):
            raise Mute() if self.how == "unsaid" else MuteValue()

class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no words")

class MuteValue(Mute, ValueError):
    pass

def never(value):
    if value:
        raise ValueError(f"expected another, got {value!r}")

def build(config, services):
    if config.how == "bug":
        raise RuntimeError(f"no login with {config.key.reveal()}")
    if config.how == "exit":
        raise SystemExit(0)
    if config.how == "mute":
        raise Mute()
    if config.how == "no problem":
        raise ConfigError([])
    raise ConfigError([Problem("key", f"{config.key.reveal()} is too old")])

@hookimpl
def llmproxy_processors():
    return [ProcessorType("tells", Telling, build, frozenset(Operation))]
"""


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("bug", "processor.p: llmproxy_tells of llmproxy-tells could not build it (RuntimeError: no login with ***)"),
        ("exit", "processor.p: llmproxy_tells of llmproxy-tells could not build it (SystemExit: 0)"),
        ("mute", "could not build it (Mute: with a message that cannot be shown)"),
        ("unsaid", "processor.p: Mute: with a message that cannot be shown"),
        ("unsaid value", "processor.p: with a message that cannot be shown"),
        ("no problem", "processor.p: llmproxy_tells of llmproxy-tells raised a ConfigError without a Problem"),
        ("problem", "processor.p.key: *** is too old"),
    ],
)
def test_what_a_plugin_does_with_its_options_is_a_problem_that_shows_no_key(
    how: str, said: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOLD_KEY", SECRET)
    install_plugin(here, "tells", TELLS)
    table = f'[processor.p]\ntype = "tells"\nkey = {{ env = "TOLD_KEY" }}\nhow = "{how}"\n'

    result = check(
        f'{table}[llm.a]\nprovider = "demo"\n[[route]]\npath_prefix = "/v1"\ntarget_llm = "a"\nprocessors = ["p"]\n'
    )

    assert result.exit_code == 1
    assert said in result.stderr
    assert SECRET not in result.output


def test_no_message_shows_the_value_of_a_secret_option(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLD_KEY", "x")
    install_plugin(here, "tells", TELLS)

    result = check(
        f'{WHOLE}[processor.p]\ntype = "tells"\nkey = {{ env = "TOLD_KEY" }}\nhow = "x"\nmode = "{SECRET}"\n'
    )

    assert "processor.p.mode: expected another\n" in result.stderr
    assert SECRET[:8] not in result.output


def test_a_mistake_of_a_table_as_a_whole_is_told_in_its_authors_words(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOLD_KEY", "x")
    install_plugin(here, "tells", TELLS)

    result = check(f'{WHOLE}[processor.p]\ntype = "tells"\nkey = {{ env = "TOLD_KEY" }}\nhow = "x"\nlow = 2\n')

    assert result.stderr.endswith("processor.p: expected low below high\n")


TAKES = """
from llmproxy_core import Endpoint, hookimpl

@hookimpl
def llmproxy_endpoints():
    async def handle(request):
        raise AssertionError
    return [Endpoint("GET", "/health", handle)]
"""


def test_a_plugins_endpoint_that_is_the_proxys_own_is_a_problem(here: Path) -> None:
    install_plugin(here, "takes", TAKES)

    result = check('[llm.a]\nprovider = "demo"\n[[route]]\npath_prefix = "/v1"\ntarget_llm = "a"\n')

    assert result.exit_code == 1
    assert "plugins: a plugin registers the endpoint GET /health, which is the proxy's own" in result.stderr


DOUBTS = """
import attrs
from llmproxy_core import LLMConfig, Operation, Problem, ProcessorType, ProviderType, hookimpl, option

@attrs.frozen
class Slow:
    wait_s: float = option("How long.", default=1.0)

def of_slow(config):
    if config.wait_s > 60:
        yield Problem("wait_s", f"{config.wait_s:g} s is longer than\\nmost clients wait")

def of_llm(config):
    return [Problem("", "this provider is about to close")] if config.models else []

def build(config, services):
    async def passes(exchange, call_next):
        return await call_next(exchange)
    return passes

@hookimpl
def llmproxy_processors():
    return [ProcessorType("slow", Slow, build, frozenset(Operation), warnings=of_slow)]

@hookimpl
def llmproxy_providers():
    from llmproxy_server.demo import DemoConfig, DemoLLM
    return [ProviderType("closing", DemoConfig, DemoLLM, warnings=of_llm)]
"""


def test_what_a_type_finds_doubtful_is_a_warning_with_its_line(here: Path) -> None:
    install_plugin(here, "doubts", DOUBTS)
    llm = '[llm.a]\nprovider = "closing"\nmodels = ["m"]\n'
    processor = '[processor.p]\ntype = "slow"\nwait_s = 90\n[processor.q]\ntype = "slow"\n'
    route = '[[route]]\npath_prefix = "/v1"\ntarget_llm = "a"\nprocessors = ["p", "q"]\n'

    result = check(llm + processor + route)

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0].endswith(", 2 warnings")
    assert result.stdout.splitlines()[-2:] == [
        "warning: line 1: llm.a: this provider is about to close",
        "warning: line 6: processor.p.wait_s: 90 s is longer than most clients wait",
    ]


def test_an_env_file_that_cannot_be_read_is_said(here: Path) -> None:
    (here / ".env").write_bytes(b"\xff\xfe\x00")

    result = check(WHOLE + "[nonsense]\n")

    assert result.exit_code == 1
    assert result.stderr.startswith("config.toml has 2 problems:\n  .env: cannot be read")
    assert ": nonsense: " in result.stderr


def test_the_real_command_gives_the_same_codes(here: Path) -> None:
    (here / "right.toml").write_text(WHOLE)
    (here / "wrong.toml").write_text(THREE_PROBLEMS)

    right = llmproxy("check", "right.toml", cwd=here, PYTHONPATH=str(here))
    wrong = llmproxy("check", "wrong.toml", cwd=here, PYTHONPATH=str(here))

    assert (right.code, wrong.code) == (0, 1)
    assert "3 problems" in wrong.err
