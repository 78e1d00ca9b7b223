"""`llmproxy rehearse FILE`."""

import json
from pathlib import Path

import pytest

from tests.llmproxy_server.cli_process import llmproxy

KEY = "sk-0123456789abcdef"
CONFIG = """\
[llm.openai]
provider = "openai"
base_url = "https://api.openai.com/v1"
token_env = "OPENAI_API_KEY"
timeouts = { first_byte_s = 20.0 }

[[route]]
path_prefix = "/v1"
target_llm = "openai"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.toml").write_text(CONFIG)
    return tmp_path


def test_a_person_reads_what_clients_saw_and_what_is_missing(folder: Path) -> None:
    ran = llmproxy("rehearse", "config.toml", "--calls", "4", "--fast", cwd=folder)

    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == "rehearsal of config.toml: 10 phases, 4 calls to each route in each"
    assert "api.openai.com is down (503)" in lines
    assert any(line.startswith("  /v1  0 of 4 answered") for line in lines)
    assert any(line.startswith("While one provider failed, ") for line in lines)
    assert "  route /v1: nothing stands in for api.openai.com: 4 of 4 calls failed when it was down" in lines


def test_machines_read_json(folder: Path) -> None:
    ran = llmproxy("rehearse", "config.toml", "--calls", "4", "--fast", "--json", cwd=folder)

    assert ran.code == 0, ran.err
    said = json.loads(ran.out)
    assert (said["file"], said["calls"], said["seed"], said["fast"]) == ("config.toml", 4, 0, True)
    assert [phase["fault"] for phase in said["phases"]] == [
        *[None, "limits", "down", "refuses", "cuts", "silent", "key", "slow"],
        *["down", None],
    ]
    well = said["phases"][0]["routes"][0]
    assert (well["route"], well["calls"], well["answered"], well["errors"]) == ("/v1", 4, 4, {})
    assert said["verdict"]["calls"] == 7 * 4
    assert "no_stand_in" in {it["kind"] for it in said["advice"]}


def test_no_key_is_shown(folder: Path) -> None:
    ran = llmproxy("rehearse", "config.toml", "--calls", "1", "--fast", "--json", cwd=folder, OPENAI_API_KEY=KEY)

    assert ran.code == 0, ran.err
    assert KEY not in ran.out + ran.err


def test_a_configuration_with_problems_is_not_rehearsed(folder: Path) -> None:
    (folder / "config.toml").write_text(CONFIG.replace('target_llm = "openai"', 'target_llm = "opnai"'))

    ran = llmproxy("rehearse", "config.toml", "--fast", cwd=folder)

    assert (ran.code, ran.out) == (2, "")
    assert 'line 9: route[1].target_llm: no [llm.opnai]; did you mean "openai"?' in ran.err


def test_machines_are_told_of_problems_too(folder: Path) -> None:
    (folder / "config.toml").write_text(CONFIG.replace('target_llm = "openai"', 'target_llm = "opnai"'))

    ran = llmproxy("rehearse", "config.toml", "--fast", "--json", cwd=folder)

    assert ran.code == 2
    said = json.loads(ran.out)
    assert [(it["line"], it["path"]) for it in said["problems"]] == [(9, "route[1].target_llm")]
    assert (said["file"], "verdict" in said) == ("config.toml", False)
    assert "route[1].target_llm" in ran.err
