"""
Counting what code does and holds: a clock would tell the machine's mood.

`work` counts the steps of the interpreter and `calls` the functions that are called; `kept` walks from an object
through all that it refers to, and gives the size of every container on the way. `left_to_collector` tells what hangs
together in a circle when nobody needs it any more: it would stay, with the bodies of calls, until a collection.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import _lru_cache_wrapper
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any

OURS = ("llmproxy_", "tests.")
_CONTAINERS = (dict, list, set, deque, OrderedDict, defaultdict)
_TOOL = 4  # of sys.monitoring; coverage is 1
_LARGEST = 20_000
"""Of a larger container only the size is looked at."""


def work(run: Callable[[], object]) -> int:
    """How many bytecodes Python executes in *run*, in code of anybody's. C functions count as one."""
    monitoring: Any = getattr(sys, "monitoring", None)
    return _traced(run) if monitoring is None else _monitored(run, monitoring)


def _monitored(run: Callable[[], object], monitoring: Any) -> int:
    """Since Python 3.12, where tracing misses bytecodes of code that has run before."""
    count = 0

    def step(code: CodeType, offset: int) -> None:
        nonlocal count
        count += 1

    monitoring.use_tool_id(_TOOL, "tests.growth")
    try:
        monitoring.register_callback(_TOOL, monitoring.events.INSTRUCTION, step)
        monitoring.set_events(_TOOL, monitoring.events.INSTRUCTION)
        run()
    finally:
        monitoring.set_events(_TOOL, 0)
        monitoring.register_callback(_TOOL, monitoring.events.INSTRUCTION, None)
        monitoring.free_tool_id(_TOOL)
    return count


def _traced(run: Callable[[], object]) -> int:
    count = 0

    def step(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if event == "opcode":
            count += 1
        return step

    before = sys.gettrace()
    sys.settrace(step)
    try:
        run()
    finally:
        sys.settrace(before)
    return count


def calls(run: Callable[[], object]) -> int:
    """How many functions are called in *run*, C functions too."""
    count = 0

    def called(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        if event in ("call", "c_call"):
            count += 1

    before = sys.getprofile()
    sys.setprofile(called)
    try:
        run()
    finally:
        sys.setprofile(before)
    return count


def instances() -> Counter[str]:
    """Live objects of our own classes, by class."""
    gc.collect()
    kinds = (type(it) for it in gc.get_objects())
    return Counter(f"{kind.__module__}.{kind.__qualname__}" for kind in kinds if _is_ours(kind, "llmproxy_"))


@contextmanager
def left_to_collector() -> Iterator[Counter[str]]:
    """Counts, when it is left, objects of our own classes that were made within and that only a collection frees."""
    found = Counter[str]()
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kinds = (type(it) for it in gc.garbage)
        found.update(f"{kind.__module__}.{kind.__qualname__}" for kind in kinds if _is_ours(kind, "llmproxy_"))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def kept(*roots: object) -> Counter[str]:
    """The sizes of all containers that *roots* hold, by the attribute that holds them: `module.Class.attribute`."""
    found = Counter[str]()
    seen = set[int]()
    left: list[tuple[str, object]] = [("", root) for root in roots]
    while left:
        where, it = left.pop()
        if id(it) in seen:
            continue
        seen.add(id(it))
        if isinstance(it, _lru_cache_wrapper):
            found[where] += it.cache_info().currsize
        elif isinstance(it, _CONTAINERS):
            found[where] += len(it)
            left += [(where, each) for each in _inside(it)]
        elif isinstance(it, tuple | frozenset):
            left += [(where, each) for each in it]
        elif isinstance(it, FunctionType | MethodType):
            left += [(where, each) for each in _closure(it)]
        elif _is_ours(type(it), *OURS) and not isinstance(it, type):
            left += [(f"{_owner(type(it), name)}.{name}", value) for name, value in _attributes(it)]
    return found


def _is_ours(kind: type, *names: str) -> bool:
    module = kind.__module__  # of some classes in C it is no text
    return isinstance(module, str) and module.startswith(names)


def _inside(it: Any) -> Sequence[object]:
    if len(it) > _LARGEST:
        return ()
    return [*it.keys(), *it.values()] if isinstance(it, dict) else list(it)


def _closure(it: Any) -> Iterator[object]:
    if isinstance(it, MethodType):
        yield it.__self__
        it = it.__func__
    for cell in getattr(it, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not set
            continue


def _attributes(it: object) -> Iterator[tuple[str, object]]:
    yield from list(getattr(it, "__dict__", {}).items())
    for kind in type(it).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            private = name.startswith("__") and not name.endswith("__")
            try:
                yield name, getattr(it, f"_{kind.__name__}{name}" if private else name)
            except AttributeError:
                continue


def _owner(kind: type, name: str) -> str:
    """The class that defines *name*, so that subclasses have its name in the table."""
    return f"{kind.__module__}.{kind.__qualname__}"
