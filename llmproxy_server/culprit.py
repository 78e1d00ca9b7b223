"""Who holds up the event loop, as far as the stack of its thread tells."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from types import FrameType
from typing import Any

import attrs

from llmproxy_core.endpoint import Endpoint
from llmproxy_core.gateway import Gateway
from llmproxy_core.layer import Layer
from llmproxy_core.pipeline import Step
from llmproxy_core.plugins import Origin

NOBODY = "nothing in Python: the process was stopped, or had no processor, or something in C waits"
OURSELVES = "llmproxy itself"
STRANGER = "code of no plugin"

_PROXY = frozenset({"llmproxy_core", "llmproxy_openai", "llmproxy_server"})
_LIBRARIES = frozenset(
    {
        *("aiohttp", "aiohappyeyeballs", "aiosignal", "frozenlist", "multidict", "propcache", "yarl", "uvloop"),
        *("attr", "attrs", "cattr", "cattrs", "cachetools", "msgspec", "pluggy", "tomli", "watchfiles"),
        *("genai_prices", "opentelemetry", "prometheus_client", "structlog"),
    }
)
_NOT_ITS_FAULT = _PROXY | _LIBRARIES | sys.stdlib_module_names
_LOOP = frozenset({"asyncio.base_events", "asyncio.runners"})
"""What is outside of these has started the loop, and waits for its end."""
_WAITING = frozenset({"asyncio.events", "selectors"})
_DEEPEST = 1000


@attrs.frozen
class Culprit:
    """*who* in words, and *place*, the file (without its path) and line where it is; None: there is none."""

    who: str
    place: str | None


class Suspects:
    """Everybody who may be named. May be asked from any thread: it only reads."""

    def __init__(self, gateway: Callable[[], Gateway]) -> None:
        """*gateway* gives the one that is served from."""
        self._gateway = gateway

    def culprit(self, frame: FrameType) -> Culprit:
        """Who runs in *frame*, the innermost of a thread that is asked about while it runs."""
        gateway = self._gateway()
        frames = list(_outwards(frame))
        if all(_module(each) in _WAITING for each in frames):
            return Culprit(NOBODY, None)
        for each in frames:
            if (named := _named(each, gateway)) is not None:
                who, origin = named
                return Culprit(who if origin is None else f"{who} (plugin {origin})", _place(frames, origin))
        for each in frames:
            if (origin := _origin_of(_module(each), gateway)) is not None:
                return Culprit(_of_plugin(origin, gateway), _place(frames, origin))
        if any(_is_foreign(each) for each in frames):
            return Culprit(STRANGER, _place(frames, None))
        return Culprit(OURSELVES, _place(frames, None))


def _outwards(frame: FrameType) -> Iterator[FrameType]:
    """*frame* and those that called it, as far as the loop."""
    left: FrameType | None = frame
    for _ in range(_DEEPEST):
        if left is None or _module(left) in _LOOP:
            return
        yield left
        left = left.f_back


def _module(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__")
    return name if isinstance(name, str) else ""


def _top(module: str) -> str:
    return module.partition(".")[0]


def _is_foreign(frame: FrameType) -> bool:
    return _top(_module(frame)) not in _NOT_ITS_FAULT


def _place(frames: list[FrameType], origin: Origin | None) -> str:
    """The innermost line of the plugin's, else of any code that is neither ours nor of a library that we use."""
    its_own = [it for it in frames if origin is not None and _top(_module(it)) == _top(origin.module)]
    foreign = [it for it in frames if _is_foreign(it)]
    frame = (its_own or foreign or frames)[0]
    code = frame.f_code
    return f"{PurePath(code.co_filename).name}:{frame.f_lineno} in {code.co_name}"


# -- names -----------------------------------------------------------------------------------------------------------

Named = tuple[str, Origin | None]


def _named(frame: FrameType, gateway: Gateway) -> Named | None:
    """Who *frame* shows to be running, if it does."""
    module = _module(frame)
    if module in _TELLING:
        return _TELLING[module](frame.f_code.co_name, frame.f_locals, gateway)
    name = _name_of(frame.f_locals.get("self"), gateway)
    return None if name is None else _processor(name, gateway)


def _of_pipeline(function: str, found: Mapping[str, Any], gateway: Gateway) -> Named | None:
    """The function that runs a processor, or that calls the LLM."""
    if function != "run":
        return None
    if isinstance(step := found.get("step"), Step):
        return _processor(step.name, gateway)
    return _llm(found["exchange"].attempts, gateway) if "send" in found and "exchange" in found else None


def _of_subscription(function: str, found: Mapping[str, Any], gateway: Gateway) -> Named | None:
    """The work of what a processor gave to a response: a watcher, a filter, a replacement."""
    for owner in (found.get("owner"), *(getattr(found.get(name), "owner", None) for name in ("wish", "replace"))):
        if isinstance(owner, Layer) and owner.name:
            return _processor(owner.name, gateway)
    return None


def _of_exchange(function: str, found: Mapping[str, Any], gateway: Gateway) -> Named | None:
    """A callback of `on_finish`: a method of a processor, or a function that was made in one."""
    callback = found.get("callback") if function == "settle" else None
    cells = getattr(callback, "__closure__", None) or ()
    for owner in (getattr(callback, "__self__", None), *(_content(cell) for cell in cells)):
        if (name := _name_of(owner, gateway)) is not None:
            return _processor(name, gateway)
    return None


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not set yet
        return None


def _of_call(function: str, found: Mapping[str, Any], gateway: Gateway) -> Named | None:
    endpoint = found.get("endpoint") if function == "_serve_own" else None
    if not isinstance(endpoint, Endpoint):
        return None
    name = f"{endpoint.method} {endpoint.path}"
    return f"endpoint {name}", gateway.registry.origins.get(("endpoint", name))


_TELLING: Mapping[str, Callable[[str, Mapping[str, Any], Gateway], Named | None]] = {
    "llmproxy_core.pipeline": _of_pipeline,
    "llmproxy_core.engine": _of_subscription,
    "llmproxy_core.drain": _of_subscription,
    "llmproxy_core.exchange": _of_exchange,
    "llmproxy_server.call": _of_call,
}
"""The modules of ours whose functions run what is not ours."""


def _name_of(it: object, gateway: Gateway) -> str | None:
    """The name of a processor in the configuration. By identity: nothing of a plugin is called in another thread."""
    if it is None:
        return None
    tables = gateway.config.processors
    for kind in {table.type.name for table in tables.values()}:
        names = [name for name, table in tables.items() if table.type.name == kind]
        running = gateway.processors(kind)
        if len(names) == len(running):  # one that could not be built, and that no route needs, is left out
            for name, processor in zip(names, running, strict=True):
                if processor is it:
                    return name
    return None


def _processor(name: str, gateway: Gateway) -> Named:
    table = gateway.config.processors.get(name)
    origin = None if table is None else gateway.registry.origins.get(("processor", table.type.name))
    return f"processor {name!r}", origin


def _llm(attempts: list[Any], gateway: Gateway) -> Named:
    if not attempts:
        return "an LLM", None
    name = attempts[-1].llm
    config = gateway.config.llms.get(name)
    return f"LLM {name!r}", None if config is None else gateway.registry.origins.get(("provider", config.provider))


def _origin_of(module: str, gateway: Gateway) -> Origin | None:
    """The plugin that *module* is of; none for what is ours."""
    if _top(module) in _NOT_ITS_FAULT:
        return None
    kin = [it for it in gateway.registry.origins.values() if _top(it.module) == _top(module)]
    near = (it for it in kin if f"{it.module}.".startswith(f"{module}.") or module.startswith(f"{it.module}."))
    return next(near, kin[0] if kin else None)


def _of_plugin(origin: Origin, gateway: Gateway) -> str:
    """The plugin, with the processor where only one is configured that is of it."""
    origins = gateway.registry.origins
    tables = gateway.config.processors
    names = [name for name, table in tables.items() if origins.get(("processor", table.type.name)) == origin]
    return f"processor {names[0]!r} (plugin {origin})" if len(names) == 1 else f"plugin {origin}"
