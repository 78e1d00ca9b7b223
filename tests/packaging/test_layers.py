"""What import-linter cannot say about the layers."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import llmproxy_core.chat
import llmproxy_core.wire
import llmproxy_openai

ROOT = Path(__file__).resolve().parents[2]

# What core and the OpenAI dialect may import: values and functions, nothing that reaches out of the process.
THIRD_PARTY = {"attr", "attrs", "cachetools", "cattrs", "msgspec", "pluggy"}
# Of the standard library, what opens sockets, files or processes.
OUTSIDE = {
    "ftplib",
    "http",
    "io",
    "multiprocessing",
    "os",
    "pathlib",
    "shutil",
    "smtplib",
    "socket",
    "socketserver",
    "ssl",
    "subprocess",
    "tempfile",
    "tomllib",
    "xmlrpc",
}
# Loaded by a test suite that asks for it, never by the package.
TESTING = ROOT / "llmproxy_core" / "testing"
EXCEPTIONS = {
    (TESTING / "fixtures.py", "pytest"),
    (TESTING / "dialect" / "strategies.py", "hypothesis.strategies"),
    (TESTING / "dialect" / "strategies.py", "hypothesis.strategies.SearchStrategy"),
}
ALLOWED = (set(sys.stdlib_module_names) - OUTSIDE) | THIRD_PARTY | {"llmproxy_core"}


def imports(path: Path) -> Iterator[str]:
    """The absolute names that a module imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_allowed(name: str, package: str) -> bool:
    # One namespace of several distributions: the API is allowed, the SDK and the exporters are not.
    if name.startswith("opentelemetry."):
        return not name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))
    if name.startswith("urllib."):
        return name.startswith("urllib.parse")
    return name.partition(".")[0] in ALLOWED | {package}


@pytest.mark.parametrize("package", ["llmproxy_core", "llmproxy_openai"])
def test_a_pure_package_imports_nothing_that_reaches_outside(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for name in imports(path)
        if not is_allowed(name, package) and (path, name) not in EXCEPTIONS
    ]

    assert not found


def plugin_modules() -> list[Path]:
    """The modules of the first-party plugins, their tests left out."""
    return [
        path for path in sorted((ROOT / "plugins").rglob("*.py")) if not path.name.startswith(("test_", "conftest"))
    ]


@pytest.mark.parametrize("path", plugin_modules(), ids=lambda path: str(path.relative_to(ROOT / "plugins")))
def test_a_plugin_uses_the_public_contract_only(path: Path) -> None:
    """
    As a third party's: what `llmproxy_core`, its `chat` and its `wire` export, and nothing of the others'.

    A protocol that is a variant of OpenAI's may build on the public names of `llmproxy_openai`.
    """
    public = {f"llmproxy_core.{name}" for name in llmproxy_core.__all__}
    public |= {f"llmproxy_core.chat.{name}" for name in llmproxy_core.chat.__all__}
    public |= {f"llmproxy_core.wire.{name}" for name in llmproxy_core.wire.__all__}
    if path.is_relative_to(ROOT / "plugins" / "mistral"):
        public |= {f"llmproxy_openai.{name}" for name in llmproxy_openai.__all__}
    own = next(part for part in path.relative_to(ROOT / "plugins").parts if part.startswith("llmproxy_"))
    own = own.removesuffix(".py")

    private = [
        name
        for name in imports(path)
        if name.startswith("llmproxy") and name not in public and name.partition(".")[0] != own
    ]

    assert private == []


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("asyncio", True),
        ("llmproxy_core.money.Money", True),
        ("opentelemetry.trace", True),
        ("urllib.parse.urlsplit", True),
        ("aiohttp.web", False),
        ("llmproxy_server.cli", False),
        ("opentelemetry.sdk.trace", False),
        ("socket", False),
        ("urllib.request.urlopen", False),
    ],
)
def test_the_rule_tells_inside_from_outside(name: str, allowed: bool) -> None:
    assert is_allowed(name, "llmproxy_core") == allowed
