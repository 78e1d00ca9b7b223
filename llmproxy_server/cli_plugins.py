"""`llmproxy plugins`: what is registered, by whom, and what could not be used."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from llmproxy_core.plugins import Origin, Registry
from llmproxy_server.cli_load import load_registry
from llmproxy_server.cli_terminal import columns, say, strong

KINDS = (
    ("provider", "providers"),
    ("dialect", "dialects"),
    ("processor", "processors"),
    ("store", "stores"),
    ("endpoint", "endpoints"),
)


def plugins() -> None:
    """Print the registry."""
    for line in _report(load_registry()):
        say(line)


def _report(registry: Registry) -> Iterator[str]:
    for kind, noun in KINDS:
        yield strong(noun)
        found = sorted((name, origin) for (of, name), origin in registry.origins.items() if of == kind)
        yield from columns((name, *_words(origin)) for name, origin in found) if found else ["  none"]
        yield ""
    if registry.broken:
        yield strong("plugins that could not be used; the others are not touched by it", "red")
        for broken in registry.broken:
            distribution, module = _words(broken.origin)
            yield f"  {module} of {distribution}: {broken.reason}"
    else:
        yield "Every installed plugin could be used."


def _words(origin: Origin) -> tuple[str, str]:
    """The distribution with its version, and the module."""
    if origin.distribution is None:
        return "no distribution", origin.module
    try:
        return f"{origin.distribution} {version(origin.distribution)}", origin.module
    except PackageNotFoundError:
        return origin.distribution, origin.module
