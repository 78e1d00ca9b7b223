"""`llmproxy diff`: what a reload from one file to another would change, and what it would lose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
import msgspec

from llmproxy_core.errors import Problem
from llmproxy_core.gateway import Gateway
from llmproxy_core.plugins import Registry
from llmproxy_server.cli_exit import ExitCode, problems_of
from llmproxy_server.cli_load import LookTransport, load_configuration, load_registry, look_at
from llmproxy_server.cli_terminal import columns, faint, say, strong
from llmproxy_server.difference import Change, Difference, difference
from llmproxy_server.generation import kept_settings
from llmproxy_server.loader import Loaded
from llmproxy_server.sharing import unshared

_SIGNS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}


def diff(old: str, new: str, *, as_json: bool) -> ExitCode:
    """Print the difference of the files *old* and *new*; the command ends with CANNOT when one cannot be served."""
    registry = load_registry()
    before, after = _served(old, registry), _served(new, registry)
    found = difference(before.config, after.config)
    server, _ = kept_settings(before.config.server, after.config.server)
    refused = list(unshared(attrs.evolve(after.config, server=server)))
    if as_json:
        said = _said(found) | {"refused": [{"path": it.path, "message": it.message} for it in refused]}
        say(msgspec.json.format(msgspec.json.encode(said)).decode())
    else:
        for line in _lines(found, old, new, refused):
            say(line)
    return ExitCode.OK if found.is_nothing else ExitCode.NOT_SO


def _served(file: str, registry: Registry) -> Loaded:
    """*file*, once it is sure that a proxy would start with it."""
    loaded = load_configuration(file, registry)
    with problems_of(file):
        look_at(loaded, registry, _nothing)
    return loaded


async def _nothing(gateway: Gateway, _: LookTransport) -> None:
    """That it could be built is all that is asked."""


def _lines(found: Difference, old: str, new: str, refused: Sequence[Problem]) -> Iterator[str]:
    if found.is_nothing:
        yield f"{old} and {new} configure the same"
        return
    yield f"a reload from {strong(old)} to {strong(new)}"
    if refused:
        yield ""
        yield strong("would be refused: restart instead", "red")
        for problem in refused:
            yield f"  {problem.path}: {problem.message}"
    changes = found.taking_effect
    if changes:
        yield ""
        yield strong("would change")
        for change in changes:
            yield from _change(change)
    if found.restart:
        yield ""
        yield strong("would not change before a restart")
        yield from columns((it.name, f"{_shown(it.running)} -> {_shown(it.given)}") for it in found.restart)
    if changes:
        yield ""
        yield strong("would drop")
        for sentence in found.drops or ("nothing",):
            yield f"  {sentence}"
        yield faint("  calls in flight end with what they began with")


def _change(change: Change) -> Iterator[str]:
    sign, colour = _SIGNS[change.kind]
    yield f"  {strong(sign, colour)} {change.table}"
    rows = [(key, _step(*values)) for key, values in change.keys.items()]
    if rows:
        yield from columns(rows, indent=6)


def _step(old: str | None, new: str | None) -> str:
    """From *old* to *new*; values that differ only where they are not shown are no step to look at."""
    return f"{_text(old)} -> {_text(new)}" if old != new else "another one, not shown"


def _text(written: str | None) -> str:
    return "(absent)" if written is None else written


def _shown(value: object) -> str:
    return "(absent)" if value is None else msgspec.json.encode(value, enc_hook=str).decode()


def _said(found: Difference) -> dict[str, object]:
    return {
        "same": found.is_nothing,
        "changes": [
            {"section": it.section, "name": it.name, "kind": it.kind, "keys": dict(it.keys)}
            for it in found.taking_effect
        ],
        "drops": found.drops,
        "needs_restart": [{"setting": it.name, "running": it.running, "given": it.given} for it in found.restart],
    }
