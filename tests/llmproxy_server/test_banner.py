"""What `llmproxy serve` says when it has begun to listen."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
import pytest

from llmproxy_core.gateway import Gateway
from llmproxy_core.plugins import Registry
from llmproxy_server.banner import banner, try_it
from llmproxy_server.cli_load import LookTransport, look_at
from llmproxy_server.loader import load
from tests.llmproxy_server.cli_process import install_plugin

URL = "http://127.0.0.1:41234"
SECRET = "sk-abcdefgh12345678"


def said(env: dict[str, str], text: str | None = None, directory: Path | None = None, **flags: object) -> list[str]:
    """The banner of a configuration, without colour."""
    path = None
    if text is not None:
        assert directory is not None
        path = directory / "config.toml"
        path.write_text(text)
    registry = Registry.load()
    loaded = load(path, registry, env, {f"server.{name}": value for name, value in flags.items()})

    async def look(gateway: Gateway, _: LookTransport) -> list[str]:
        return list(banner(loaded, gateway, url=URL, own_url=URL, version="1.2.3"))

    return [click.unstyle(line) for line in look_at(loaded, registry, look)]


def row(lines: list[str], name: str) -> str:
    (found,) = [line for line in lines if line.startswith(f"  {name}  ")]
    return found.removeprefix(f"  {name}").strip()


def curl(lines: list[str]) -> list[str]:
    """The command to try, as a shell would read it."""
    return shlex.split(lines[lines.index("Try it:") + 1])


# -- what it says ----------------------------------------------------------------------------------------------------


def test_the_first_line_ends_in_the_address() -> None:
    assert said({})[0] == f"llmproxy 1.2.3 is listening on {URL}"


def test_host_and_port_have_their_origins(tmp_path: Path) -> None:
    text = '[server]\nhost = "127.0.0.2"\n' + ONE_LLM.format(prefix="/v1", models="", route="")

    lines = said({"PORT": "41234"}, text, tmp_path)
    default = said({})
    flags = said({"PORT": "1"}, port=41234)

    assert (row(lines, "host"), row(lines, "port")) == ("127.0.0.2 (config.toml)", "41234 (PORT)")
    assert (row(default, "host"), row(flags, "port")) == ("127.0.0.1 (default)", "41234 (command line)")


def test_a_configuration_is_named_or_said_to_be_the_default(tmp_path: Path) -> None:
    text = ONE_LLM.format(prefix="/v1", models="", route="")

    assert row(said({}), "configuration").startswith("embedded default")
    assert row(said({}, text, tmp_path), "configuration") == str(tmp_path / "config.toml")


def test_keys_are_named_and_never_shown() -> None:
    lines = said({"OPENAI_API_KEY": SECRET, "CLAUDE_API_KEY": SECRET[::-1]})

    assert row(lines, "keys") == "OPENAI_API_KEY (openai), CLAUDE_API_KEY (anthropic)"
    assert not any(SECRET in line or SECRET[::-1] in line for line in lines)


def test_without_keys_it_says_which_would_be_read_and_that_the_demo_answers_everything() -> None:
    lines = said({})

    assert "OPENAI_API_KEY, ANTHROPIC_API_KEY, GEMINI_API_KEY, MISTRAL_API_KEY" in row(lines, "keys")
    assert row(lines, "demo").startswith("answers every model")


def test_with_a_key_the_demo_answers_its_own_models_only() -> None:
    demo = row(said({"OPENAI_API_KEY": SECRET}), "demo")

    assert demo.startswith("answers models demo, demo/slow")
    assert "every model" not in demo


def test_what_the_environment_sets_for_every_llm_is_told_with_its_origin() -> None:
    text = said({"OPENAI_API_KEY": SECRET, "HTTP_TIMEOUT": "30s"})

    assert row(text, "llm.*.timeouts.first_byte_s") == "30.0 (HTTP_TIMEOUT)"


def test_health_has_an_address_that_can_be_called(tmp_path: Path) -> None:
    registry = Registry.load()
    loaded = load(None, registry, {}, {})

    async def look(gateway: Gateway, _: LookTransport) -> list[str]:
        return list(banner(loaded, gateway, url=URL, own_url="http://0.0.0.0:9090", version="1.2.3"))

    assert row(look_at(loaded, registry, look), "health") == "http://127.0.0.1:9090/health"


def test_warnings_are_in_it() -> None:
    text = said({}, own_endpoints=True, cors_allowed_origins=["*"])

    assert any(line.startswith("  warning: server.cors_allowed_origins: ") for line in text)


def test_a_plugin_that_could_not_be_used_is_named_with_its_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin(tmp_path, "broken", "import no_such_module")
    monkeypatch.syspath_prepend(tmp_path)

    (warning,) = [line for line in said({}) if line.startswith("  warning: ")]

    assert warning.startswith("  warning: plugins: llmproxy_broken of llmproxy-broken could not be used: cannot be ")
    assert "no_such_module" in warning


# -- the command to try ----------------------------------------------------------------------------------------------


def test_the_command_asks_the_demo_and_streams() -> None:
    name, *arguments = curl(said({"OPENAI_API_KEY": SECRET}))

    assert name == "curl"
    assert f"{URL}/v1/chat/completions" in arguments
    assert any('"model": "demo"' in argument and '"stream": true' in argument for argument in arguments)


ONE_LLM = """
[llm.a]
provider = "openai"
base_url = "http://127.0.0.1:9"
{models}

[[route]]
path_prefix = "{prefix}"
target_llm = "a"
{route}
"""


def tried(tmp_path: Path, prefix: str, models: str = "", route: str = "") -> list[str]:
    return curl(said({}, ONE_LLM.format(prefix=prefix, models=models, route=route), tmp_path))


def test_a_route_without_a_version_segment_gets_one(tmp_path: Path) -> None:
    assert f"{URL}/llm/v1/chat/completions" in tried(tmp_path, "/llm", 'models = ["x"]')
    assert f"{URL}/v1/chat/completions" in tried(tmp_path, "/", 'models = ["x"]')


def test_the_model_is_one_that_is_written_out(tmp_path: Path) -> None:
    command = " ".join(tried(tmp_path, "/v1", 'models = ["g*", "exact"]'))

    assert '"model": "exact"' in command


def test_a_route_that_does_not_stream_is_not_asked_to(tmp_path: Path) -> None:
    command = " ".join(tried(tmp_path, "/v1", 'models = ["x"]', "allow_streaming = false"))

    assert '"stream": false' in command


def test_where_no_model_is_known_the_models_are_asked_for(tmp_path: Path) -> None:
    assert tried(tmp_path, "/v1") == ["curl", "-s", f"{URL}/v1/models"]


def test_an_address_for_all_is_replaced_by_one_that_can_be_called() -> None:
    registry = Registry.load()
    loaded = load(None, registry, {}, {})

    async def look(gateway: Gateway, _: LookTransport) -> str | None:
        return try_it(gateway, "http://0.0.0.0:3000")

    assert "http://127.0.0.1:3000/v1/" in str(look_at(loaded, registry, look))
