"""What is installed. It is looked up once: for a version, all that a distribution says of itself is read."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def _version() -> str:
    try:
        return version("llmproxy")
    except PackageNotFoundError:  # pragma: no cover - run from a tree that is not installed
        return "unknown"


VERSION = _version()
"""Of the distribution that we are from."""
