"""
What is said where a package that llmproxy needs is not there, or does not fit this Python.

Nothing stands in for one: a slower parser, or event loop, would serve as if all were well.
"""

from __future__ import annotations

import re
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec

_COMPILED = ("httptools", "msgspec") if sys.platform == "win32" else ("httptools", "msgspec", "uvloop")
_DISTRIBUTIONS = {"attr": "attrs", "dotenv": "python-dotenv", "opentelemetry": "opentelemetry-sdk"}
"""Of modules whose distribution has another name."""


def check_compiled() -> None:
    """
    ModuleNotFoundError where a package with compiled parts is not installed, without which nothing can be served.

    They are looked for, not loaded: a parent of workers does without them.
    """
    for name in _COMPILED:
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def load_compiled() -> None:
    """ImportError where one of them does not fit this Python."""
    for name in _COMPILED:
        import_module(name)


def advice(error: ImportError) -> str | None:
    """Which package *error* is about, and how to install it, in sentences; None where it is no requirement of ours."""
    module = (error.name or "").partition(".")[0]
    if (requirement := _requirements().get(_DISTRIBUTIONS.get(module, module).replace("_", "-"))) is None:
        return None
    install = f"{sys.executable} -m pip install"
    if isinstance(error, ModuleNotFoundError) and error.name == module:
        return (
            f"the package {module} is missing, and nothing stands in for it. Install it:\n  {install} '{requirement}'"
        )
    version = f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}"
    reason = " ".join(str(error).split())
    return (
        f"the package {module} cannot be loaded by this {version} ({reason}). Install it anew:\n"
        f"  {install} --force-reinstall '{requirement}'"
    )


def _requirements() -> dict[str, str]:
    """What llmproxy asks for here, by the name of the distribution: `{"uvloop": "uvloop>=0.23.0"}`."""
    try:
        found = requires("llmproxy") or []
    except PackageNotFoundError:  # pragma: no cover - run from a tree that is not installed
        return {}
    given = [it.partition(";")[0].strip() for it in found if "extra ==" not in it]
    return {re.split(r"[^A-Za-z0-9._-]", it, maxsplit=1)[0].lower(): it for it in given}
