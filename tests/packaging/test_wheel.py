"""The wheel alone, in a new environment and an empty directory, does what the checkout does."""

import http.client
import json
import re
import signal
import socket
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tomli

from tests.packaging.installation import ROOT, Installation

pytestmark = [
    pytest.mark.packaging,
    pytest.mark.timeout(240),
]

PACKAGES = {"llmproxy_core", "llmproxy_openai", "llmproxy_server"}
PLUGINS = {
    "llmproxy_anthropic",
    "llmproxy_cache",
    "llmproxy_chaos",
    "llmproxy_cost_limit",
    "llmproxy_enhance_query",
    "llmproxy_gemini",
    "llmproxy_mistral",
    "llmproxy_ollama",
}

FIND_EXAMPLE = """\
import importlib.resources
print(importlib.resources.files("llmproxy_server") / "config.example.toml")
"""

FIND_PLUGINS = """\
import importlib.metadata
for entry_point in importlib.metadata.entry_points(group="llmproxy"):
    entry_point.load()
    print(entry_point.name)
"""

QUESTION = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": "What is a proxy?"}]}


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def serving(installation: Installation, port: int, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """The proxy with *options*, once its banner says where it listens; it is gone afterwards."""
    process = subprocess.Popen(
        [installation.command, "serve", "--port", str(port), *options],
        cwd=installation.directory,
        env=installation.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                said.append(line)
                if f":{port}" in line:
                    break
            else:
                pytest.fail(f"the proxy ended without saying where it listens:\n{''.join(said)}")
            yield process
        finally:
            process.kill()


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in names_in(wheel)}

    (metadata,) = tops - PACKAGES - PLUGINS

    assert metadata.endswith(".dist-info")
    assert tops - {metadata} == PACKAGES | PLUGINS


def test_every_package_says_that_it_is_typed(wheel: Path) -> None:
    assert {f"{package}/py.typed" for package in PACKAGES | PLUGINS} <= names_in(wheel)


def test_every_module_of_the_checkout_is_in_the_wheel(wheel: Path) -> None:
    modules = {str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}

    assert modules
    assert modules <= names_in(wheel)


def test_the_plugins_are_in_the_wheel_without_their_tests(wheel: Path) -> None:
    written = {
        str(path.relative_to(folder))
        for folder in (ROOT / "plugins").iterdir()
        for path in folder.rglob("*.py")
        if not path.name.startswith("test_")
    }
    packed = {name for name in names_in(wheel) if name.partition("/")[0].removesuffix(".py") in PLUGINS}

    assert written
    assert packed - {f"{plugin}/py.typed" for plugin in PLUGINS} == written


def test_the_licence_is_in_the_wheel(wheel: Path) -> None:
    assert any(name.endswith("/licenses/LICENSE") for name in names_in(wheel))


def test_the_example_in_the_wheel_is_that_of_the_checkout(installation: Installation) -> None:
    found = installation.run(str(installation.python), "-c", FIND_EXAMPLE)

    assert Path(found.stdout.strip()).read_bytes() == (ROOT / "config.example.toml").read_bytes(), found.stderr


def test_the_installed_plugins_load(installation: Installation) -> None:
    project = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]

    found = installation.run(str(installation.python), "-c", FIND_PLUGINS)

    assert set(found.stdout.split()) == set(project["entry-points"]["llmproxy"]), found.stderr


@pytest.mark.parametrize("start", [["llmproxy"], ["python", "-m", "llmproxy_server"]], ids=["command", "module"])
def test_the_version_is_that_of_pyproject(installation: Installation, start: list[str]) -> None:
    version = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    command = str(installation.python.with_name(start[0]))

    said = installation.run(command, *start[1:], "--version")

    assert said.returncode == 0, said.stderr
    assert re.search(rf"\b{re.escape(version)}\b", said.stdout)


def test_check_accepts_the_packaged_example(installation: Installation, made_up_keys: dict[str, str]) -> None:
    example = installation.run(str(installation.python), "-c", FIND_EXAMPLE).stdout.strip()

    said = installation.run(installation.command, "check", example, **made_up_keys)

    assert said.returncode == 0, said.stdout + said.stderr
    routes = tomli.loads(Path(example).read_text())["route"]
    assert [route["path_prefix"] for route in routes if route["path_prefix"] not in said.stdout] == []


def test_check_refuses_a_wrong_file(installation: Installation) -> None:
    wrong = installation.directory / "wrong.toml"
    wrong.write_text('[[route]]\npath_prefix = "/v1"\ntarget_llm = "nowhere"\n')

    said = installation.run(installation.command, "check", str(wrong))

    assert said.returncode != 0
    assert "nowhere" in said.stdout + said.stderr
    assert "Traceback" not in said.stderr


def test_the_installed_proxy_streams_an_answer_and_ends_on_sigterm(installation: Installation) -> None:
    port = free_port()

    with serving(installation, port) as process:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("POST", "/v1/chat/completions", json.dumps(QUESTION), {"Content-Type": "application/json"})
        response = connection.getresponse()
        lines = response.read().decode().splitlines()
        connection.close()
        process.send_signal(signal.SIGTERM)
        status = process.wait(timeout=20)

    assert response.status == 200, lines
    assert (response.headers["Content-Type"] or "").startswith("text/event-stream")
    data = [line.removeprefix("data: ") for line in lines if line]
    assert data[-1] == "[DONE]"
    chunks = [json.loads(text) for text in data[:-1]]
    pieces = [choice["delta"].get("content") for chunk in chunks for choice in chunk["choices"]]
    assert len([piece for piece in pieces if piece]) > 1, "the answer came in one piece"
    assert status == 0
