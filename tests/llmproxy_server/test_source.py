"""Where a configuration is read from, and that all who load one reading have the same."""

from pathlib import Path

import pytest

from llmproxy_core.errors import ConfigError
from llmproxy_core.plugins import Registry
from llmproxy_server import demo
from llmproxy_server.source import Snapshot, Source
from tests.proxy import STANDARD_PLUGINS

FILE = '[llm.a]\nprovider = "demo"\n[[route]]\npath_prefix = "/v1"\ntarget_llm = "a"\n'
SECRET = "sk-0123456789abcdef"
REGISTRY = Registry.of(*STANDARD_PLUGINS, demo)


def source(folder: Path, text: str | None = FILE, **command_line: object) -> Source:
    path = None
    if text is not None:
        path = folder / "proxy.toml"
        path.write_text(text)
    given = {f"server.{name}": value for name, value in command_line.items()}
    return Source(path, given, {"LOG_LEVEL": "warn", "KEY": SECRET}, folder)


def test_a_reading_does_not_change_with_its_files(tmp_path: Path) -> None:
    read = source(tmp_path, port=1)
    snapshot = read.read()
    (tmp_path / "proxy.toml").write_text("nonsense")

    server = snapshot.load(REGISTRY).config.server

    assert (server.port, server.log.level) == (1, "warn")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read.read().load(REGISTRY)


def test_each_reading_has_the_environment_file_as_it_is_then(tmp_path: Path) -> None:
    read = source(tmp_path)
    assert read.read().load(REGISTRY).config.server.port == 3000
    (tmp_path / ".env").write_text("PORT=7\nLOG_LEVEL=debug\n")

    server = read.read().load(REGISTRY).config.server

    assert (server.port, server.log.level) == (7, "warn")  # the environment itself wins


def test_another_process_loads_the_same_from_its_bytes(tmp_path: Path) -> None:
    read = source(tmp_path, FILE + '[processor.unused]\ntype = "nothing"\n', port=1)
    snapshot = read.read()
    here = Snapshot.from_bytes(snapshot.to_bytes())

    assert here == snapshot
    with pytest.raises(ConfigError) as caught:
        here.load(REGISTRY)
    assert caught.value.problems[0].line == 7


def test_variables_that_are_no_text_survive(tmp_path: Path) -> None:
    snapshot = Source(None, {}, {"ODD": "\udcff\u00e9"}, tmp_path).read()

    assert Snapshot.from_bytes(snapshot.to_bytes()) == snapshot


def test_the_embedded_default_is_read_too(tmp_path: Path) -> None:
    read = source(tmp_path, None)
    assert read.files == (tmp_path / ".env",)
    (tmp_path / ".env").write_text(f"OPENAI_API_KEY={SECRET}\n")

    assert "openai" in Snapshot.from_bytes(read.read().to_bytes()).load(REGISTRY).config.llms


def test_no_key_is_shown(tmp_path: Path) -> None:
    read = source(tmp_path, f"# {SECRET}\n{FILE}")

    assert SECRET not in repr(read) + repr(read.read()) + str(read.read())


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        Source(tmp_path / "nothing.toml", {}, {}, tmp_path).read()
