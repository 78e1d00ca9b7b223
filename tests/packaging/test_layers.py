"""What import-linter cannot say about the layers."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# What core and the OpenAI dialect may import: values and functions, nothing that reaches out of the process.
THIRD_PARTY = {"attr", "attrs", "cattrs", "msgspec", "pluggy"}
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
        if not is_allowed(name, package)
    ]

    assert not found


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
