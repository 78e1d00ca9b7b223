"""`llmproxy explain`: which route and why, operation, processors, LLM, upstream URL; nothing is sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from llmproxy_server.cli import llmproxy as command
from tests.llmproxy_server.cli_process import install_plugin, llmproxy

SECRET = "sk-abcdefgh12345678"

CONFIG = """
[llm.openai]
provider = "openai"
base_url = "https://api.openai.com/v1"
token_env = "OPENAI_API_KEY"
models = { "gpt-4" = "gpt-4o", "gpt-*" = "gpt-4o-mini" }

[llm.fixed]
provider = "openai"
base_url = "http://localhost:11434"
models = ["fixed"]
model = "llama3"

[llm.demo]
provider = "demo"
models = ["demo*"]

[llm.best]
provider = "by_model"
members = ["openai", "fixed", "demo"]

[processor.chats]
type = "explain_chat"

[processor.all]
type = "explain_all"

[[route]]
path_prefix = "/v1"
target_llm = "best"
processors = ["all", "chats"]

[[route]]
path_prefix = "/v1/raw"
target_llm = "openai"
operations = ["opaque"]
strip_prefix = "/v1/raw"

[[route]]
path_prefix = "/one"
target_llm = "openai"
allow_streaming = false
"""

TYPES = """
from attrs import frozen
from llmproxy_core import Operation, ProcessorType, hookimpl

@frozen
class Nothing:
    pass

class Never:
    def __init__(self, config, services):
        pass

    async def __call__(self, exchange, call_next):
        raise AssertionError("explain runs no processor")

@hookimpl
def llmproxy_processors():
    chat = frozenset({Operation.CHAT})
    return [
        ProcessorType("explain_chat", Nothing, Never, chat, skippable=True),
        ProcessorType("explain_all", Nothing, Never, frozenset(Operation), skippable=True),
    ]
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of its own to run in, with CONFIG in config.toml and its processor types on the path."""
    install_plugin(tmp_path, "explained", TYPES)
    (tmp_path / "config.toml").write_text(CONFIG)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    return tmp_path


def explain(*arguments: str) -> Result:
    return CliRunner().invoke(command, ["explain", *arguments, "--config", "config.toml"])


def rows(result: Result) -> dict[str, str]:
    """The rows by their first cell; a row without one belongs to the row above."""
    found: dict[str, str] = {}
    last = ""
    for line in result.stdout.splitlines()[1:]:
        key, _, value = line.strip().partition("  ")
        if line.startswith("    "):
            found[last] += f" | {line.strip()}"
        else:
            found[key] = value.strip()
            last = key
    return found


# -- served ----------------------------------------------------------------------------------------------------------


def test_a_chat_call_from_the_path_to_the_upstream_url() -> None:
    result = explain("post", "/v1/chat/completions", "--model", "gpt-4")

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == "POST /v1/chat/completions"
    assert rows(result) == {
        "route": "/v1, the longest path_prefix that covers the path",
        "operation": "chat, since the path ends in /v1/chat/completions (openai.chat)",
        "dialect": "openai",
        "answers": "streamed and plain",
        "processors": "1. all (explain_all) | 2. chats (explain_chat)",
        "LLM": "best (by_model) -> openai (openai)",
        "model": "gpt-4 -> gpt-4o",
        "upstream": "POST https://api.openai.com/v1/chat/completions",
    }


def test_a_model_that_no_request_may_name_is_refused_as_a_request_would_be() -> None:
    result = explain("post", "/v1/chat/completions", "--model", "x" * 257)

    assert result.exit_code == 1
    assert rows(result)["route"].startswith("/v1,")
    assert rows(result)["refused"].startswith("400 ")


@pytest.mark.parametrize(
    ("model", "member", "sent"),
    [
        ("gpt-4", "openai (openai)", "gpt-4 -> gpt-4o"),
        ("gpt-5", "openai (openai)", "gpt-5 -> gpt-4o-mini"),
        ("fixed", "fixed (openai)", "fixed -> llama3"),
        ("demo/slow", "demo (demo)", "demo/slow"),
    ],
)
def test_a_group_goes_to_the_member_that_serves_the_model(model: str, member: str, sent: str) -> None:
    found = rows(explain("POST", "/v1/chat/completions", "--model", model))

    assert found["LLM"] == f"best (by_model) -> {member}"
    assert found["model"] == sent


def test_without_a_model_a_group_is_left_open() -> None:
    result = explain("POST", "/v1/chat/completions")

    assert result.exit_code == 0
    assert rows(result)["LLM"] == "best (by_model)"
    assert rows(result)["upstream"] == "one of openai, fixed, demo: say the request's model with --model"


def test_an_llm_that_answers_by_itself_has_no_upstream() -> None:
    found = rows(explain("POST", "/v1/chat/completions", "--model", "demo"))

    assert found["upstream"] == "none: demo answers by itself"


def test_the_version_segment_is_added_to_a_bare_base_url() -> None:
    found = rows(explain("POST", "/v1/chat/completions", "--model", "fixed"))

    assert found["upstream"] == "POST http://localhost:11434/v1/chat/completions"


def test_processors_that_the_operation_passes_by_are_named_with_the_reason() -> None:
    found = rows(explain("POST", "/v1/embeddings", "--model", "gpt-4"))

    assert found["operation"] == "embeddings, since the path ends in /v1/embeddings (openai.embeddings)"
    assert found["processors"] == "1. all (explain_all)"
    assert found["passed by"] == "chats (explain_chat): it acts on chat, not on embeddings"
    assert found["upstream"] == "POST https://api.openai.com/v1/embeddings"
    assert "answers" not in found


def test_an_opaque_call_keeps_the_rest_of_its_path_and_its_query() -> None:
    result = explain("PATCH", "/v1/raw/files/7?after=x%20y")

    assert result.exit_code == 0
    found = rows(result)
    assert found["route"] == "/v1/raw, the longest path_prefix that covers the path; shorter ones: /v1"
    assert found["operation"].startswith("opaque, since the route lists it")
    assert found["processors"] == "none"
    assert found["upstream"] == "PATCH https://api.openai.com/v1/files/7?after=x%20y"


def test_a_model_list_that_the_configuration_answers() -> None:
    result = explain("GET", "/v1/models")

    assert result.exit_code == 0
    assert rows(result)["upstream"] == "none: the configuration lists 2 models"


def test_a_route_without_streams_says_so() -> None:
    found = rows(explain("POST", "/one/v1/chat/completions", "--model", "gpt-4"))

    assert found["answers"] == "plain only"
    assert found["LLM"] == "openai (openai)"


def test_without_a_file_the_embedded_default_is_explained(here: Path) -> None:
    result = CliRunner().invoke(command, ["explain", "POST", "/v1/chat/completions", "--model", "gpt-9"])

    assert result.exit_code == 0
    assert rows(result)["LLM"] == "default (by_model) -> openai (openai)"


@pytest.mark.parametrize(("method", "code"), [("GET", 0), ("HEAD", 0), ("POST", 1)])
def test_the_proxys_own_endpoints_win_over_routes(method: str, code: int) -> None:
    result = explain(method, "/health")

    assert result.exit_code == code
    assert set(rows(result)) == ({"endpoint"} if code == 0 else {"refused"})


def test_endpoints_that_are_switched_off_leave_the_path_to_the_routes(here: Path) -> None:
    (here / "config.toml").write_text(CONFIG + "\n[server]\nown_endpoints = false\n")

    assert explain("GET", "/health").exit_code == 1


def test_a_head_is_explained_as_the_get_it_stands_for() -> None:
    assert rows(explain("HEAD", "/v1/models"))["operation"].startswith("models")


# -- not served ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        (("GET", "/nowhere"), "404 route_not_found: "),
        (("GET", "/v1x"), "404 route_not_found: "),
        (("GET", "/v1/chat/completions"), "405 method_not_allowed: "),
        (("POST", "/v1/v1/chat/completions"), "404 route_not_found: The path has /v1 twice"),
        (("POST", "/v1//chat/completions"), "400 ambiguous_path: "),
        (("POST", "v1/chat/completions"), "400 ambiguous_path: "),
        (("POST", "/v1/chat/completions", "--model", "other"), "404 model_not_found: "),
        (("POST", "/one/chat/completions", "--model", "other"), "404 model_not_found: "),
        (("GET", "/v1/models/other"), "404 model_not_found: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_nothing_serves_exits_1_with_the_error_that_a_client_gets(
    arguments: tuple[str, ...], refused: str
) -> None:
    result = explain(*arguments)

    assert result.exit_code == 1, result.output
    assert rows(result)["refused"].startswith(refused)


def test_an_opaque_call_to_a_group_is_refused_since_nobody_reads_its_model(here: Path) -> None:
    route = '[[route]]\npath_prefix = "/any"\ntarget_llm = "best"\noperations = ["opaque"]\n'
    (here / "config.toml").write_text(CONFIG + route)

    result = explain("POST", "/any/v1/files", "--model", "gpt-4")

    assert result.exit_code == 1
    assert rows(result)["refused"].startswith("400 ")


def test_no_route_is_said_in_so_many_words() -> None:
    assert rows(explain("GET", "/v1x/models"))["route"] == "none: no route's path_prefix covers this path"


def test_a_configuration_that_cannot_be_served_exits_2(here: Path) -> None:
    (here / "config.toml").write_text("[server]\nport = 1.5\n")

    result = explain("GET", "/v1/models")

    assert result.exit_code == 2
    assert "config.toml has 2 problems:\n" in result.stderr


def test_no_secret_is_printed() -> None:
    for arguments in (("POST", "/v1/chat/completions", "--model", "gpt-4"), ("GET", "/v1/raw/x")):
        assert SECRET not in explain(*arguments).output


def test_the_real_command_gives_the_same_codes(here: Path) -> None:
    served = llmproxy("explain", "GET", "/v1/models", cwd=here)
    refused = llmproxy("explain", "GET", "/nowhere", cwd=here)

    assert (served.code, refused.code) == (0, 1)
