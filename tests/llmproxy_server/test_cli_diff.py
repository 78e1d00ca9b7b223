"""`llmproxy diff OLD NEW`."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from llmproxy_server.cli import llmproxy as command
from tests.llmproxy_server.cli_process import llmproxy

OLD = """\
[server]
port = 3000
max_in_flight = 100

[llm.openai]
provider = "openai"
base_url = "http://127.0.0.1:9/v1"
token_env = "KEY"

[processor.answers]
type = "cache"

[[route]]
path_prefix = "/v1"
target_llm = "openai"
processors = ["answers"]
"""
KEY = "sk-0123456789abcdef"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of its own to run in, with two files that are the same."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEY", KEY)
    (tmp_path / "old.toml").write_text(OLD)
    (tmp_path / "new.toml").write_text(OLD)
    return tmp_path


def diff(*arguments: str) -> Result:
    return CliRunner().invoke(command, ["diff", *arguments])


def rewrite(folder: Path, *changes: tuple[str, str]) -> None:
    text = OLD
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    (folder / "new.toml").write_text(text)


def test_files_that_configure_the_same_end_with_0(folder: Path) -> None:
    rewrite(folder, ("port = 3000\n", "port = 3_000 # as before\n"))

    ran = diff("old.toml", "new.toml")

    assert (ran.exit_code, ran.stdout) == (0, "old.toml and new.toml configure the same\n")


def test_the_value_of_a_header_is_not_shown_whatever_its_name(folder: Path) -> None:
    old = f'{OLD}[telemetry]\nheaders = {{ x-a = "hush" }}\n'.replace('"KEY"', '"KEY"\nheaders = { x-b = "hush" }')
    (folder / "old.toml").write_text(old)
    (folder / "new.toml").write_text(old.replace("hush", "hushed"))

    for arguments in (["old.toml", "new.toml"], ["old.toml", "new.toml", "--json"]):
        ran = diff(*arguments)

        assert ran.exit_code == 1
        assert "headers" in ran.stdout
        assert "hush" not in ran.stdout

    checked = CliRunner().invoke(command, ["check", "old.toml"])
    assert checked.exit_code == 0
    assert "telemetry.headers" in checked.stdout
    assert "hush" not in checked.stdout


def test_what_is_different_is_said_and_ends_with_1(folder: Path) -> None:
    rewrite(folder, ("port = 3000", "port = 3001"), ("= 100", "= 50"), ('"/v1"\nt', '"/v2"\nt'))

    ran = diff("old.toml", "new.toml")

    assert ran.exit_code == 1
    assert ran.stdout.splitlines() == [
        "a reload from old.toml to new.toml",
        "",
        "would change",
        "  - route /v1",
        "  + route /v2",
        "  ~ server",
        "      max_in_flight  100 -> 50",
        "",
        "would not change before a restart",
        "  server.port  3000 -> 3001",
        "",
        "would drop",
        "  nothing",
        "  calls in flight end with what they began with",
    ]


def test_machines_read_json(folder: Path) -> None:
    rewrite(folder, ("port = 3000", "port = 3001"), ('"http://127.0.0.1:9/v1"', '"http://127.0.0.1:10/v1"'))

    ran = diff("--json", "old.toml", "new.toml")

    assert ran.exit_code == 1
    assert json.loads(ran.stdout) == {
        "same": False,
        "changes": [
            {
                "section": "llm",
                "name": "openai",
                "kind": "changed",
                "keys": {"base_url": ['"http://127.0.0.1:9/v1"', '"http://127.0.0.1:10/v1"']},
            }
        ],
        "drops": ["the answers of route /v1 that processor.answers kept: it may answer otherwise now"],
        "needs_restart": [{"setting": "server.port", "running": 3000, "given": 3001}],
        "refused": [],
    }


@pytest.mark.parametrize("which", ["old.toml", "new.toml"])
def test_a_file_that_cannot_be_served_ends_with_2(folder: Path, which: str) -> None:
    (folder / which).write_text(OLD.replace('type = "cache"', 'type = "cachet"'))

    ran = diff("old.toml", "new.toml")

    assert ran.exit_code == 2
    assert f"{which} has 1 problem" in ran.stderr
    assert 'did you mean "cache"?' in ran.stderr


def test_no_key_is_shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = "sk-fedcba9876543210"
    monkeypatch.setenv("OTHER", other)
    rewrite(folder, ('token_env = "KEY"', 'token_env = "OTHER"\nheaders = {x-a = {env = "KEY"}}'))

    for form in ([], ["--json"]):
        ran = diff(*form, "old.toml", "new.toml")

        assert ran.exit_code == 1
        assert KEY not in ran.stdout + ran.stderr
        assert other not in ran.stdout + ran.stderr


def test_what_a_reload_would_refuse_though_the_file_is_right_is_said(folder: Path) -> None:
    """The number of workers stays as it is until a restart."""
    budget = '[processor.budget]\ntype = "cost_limit"\ndaily_usd = "1.00"\n\n[[route]]'
    rewrite(folder, ("[[route]]", budget), ('["answers"]', '["answers", "budget"]'))
    (folder / "old.toml").write_text(OLD.replace("port = 3000", "port = 3000\nworkers = 2"))

    ran = diff("old.toml", "new.toml")
    as_json = diff("old.toml", "new.toml", "--json")

    assert "would be refused: restart instead\n  processor.budget: each of the 2 workers" in ran.stdout
    assert [it["path"] for it in json.loads(as_json.stdout)["refused"]] == ["processor.budget"]


def test_the_real_command_gives_the_same_codes(folder: Path) -> None:
    (folder / "wrong.toml").write_text(OLD.replace('type = "cache"', 'type = "cachet"'))
    (folder / "other.toml").write_text(OLD.replace("= 100", "= 50"))

    codes = [llmproxy("diff", "old.toml", f"{name}.toml", cwd=folder).code for name in ("new", "other", "wrong")]

    assert codes == [0, 1, 2]
