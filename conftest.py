"""What holds for every test: no settings from outside, no warning, no task left behind."""

import asyncio
import gc
import os
import sys
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import pytest_asyncio

# A cancelled task may need a few turns of the loop to end; one that needs longer than this is leaked.
LEAK_GRACE_S = 1.0

# The kits that plugins are tested with; by name, since only some runs import them. In tests/ they are what is tested.
CONFORMANCE_KITS = frozenset({"ProcessorConformance", "DialectConformance"})
OF_THE_CORE = Path(__file__).parent / "tests"

TRACER = pytest.StashKey[Any]()
"""What coverage traces with, where it does."""

# A developer's own keys, proxies and ports must not change what a test sees.
FOREIGN_VARIABLES = frozenset(
    {
        "ALL_PROXY",
        "ANTHROPIC_API_KEY",
        "CACHE_ENABLED",
        "CACHE_TTL",
        "CLAUDE_API_KEY",
        "GEMINI_API_KEY",
        "GOOGLE_API_KEY",
        "HOST",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "HTTP_TIMEOUT",
        "IDLE_CONN_TIMEOUT",
        "LOG_LEVEL",
        "MAX_IDLE_CONNS",
        "MAX_IDLE_CONNS_PER_HOST",
        "MISTRAL_API_KEY",
        "NO_PROXY",
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "PORT",
        "PROXY_API_DEBUG",
        "PROXY_API_HOST",
        "PROXY_API_PORT",
        "PYTHONUNBUFFERED",
    }
)


def pytest_configure() -> None:
    """Clean the environment, which the processes of tests inherit, and set how deep the property tests go."""
    for name in [name for name in os.environ if name.upper() in FOREIGN_VARIABLES]:
        del os.environ[name]
    # No deadline: a machine shared with other work is not a failure of the code.
    hypothesis.settings.register_profile("dev", deadline=None, max_examples=50)
    reproducible: dict[str, Any] = {"deadline": None, "derandomize": True, "print_blob": True, "database": None}
    hypothesis.settings.register_profile("again", max_examples=50, **reproducible)
    hypothesis.settings.register_profile("ci", max_examples=200, **reproducible)
    default = "ci" if os.environ.get("CI") else "dev"
    hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or default)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage while thousands of items are made that all stay: that is a tenth of the time it takes."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Let no collection look again at what was made so far: thousands of tests and what they import stay to the end."""
    gc.collect()
    gc.freeze()


def pytest_itemcollected(item: pytest.Item) -> None:
    """
    Mark the conformance tests of plugins as what repeats itself: here, before `-m` chooses among the items.

    Each plays hundreds of calls, and measured they take three times as long. A plugin's own tests measure its code.
    """
    kinds = item.cls.__mro__ if isinstance(item, pytest.Function) and item.cls else ()
    if any(kind.__name__ in CONFORMANCE_KITS for kind in kinds) and not item.path.is_relative_to(OF_THE_CORE):
        item.add_marker("repeats")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Watch the tasks of every asynchronous test; the synchronous ones have no event loop to pay for."""
    for item in items:
        if not (isinstance(item, pytest.Function) and pytest_asyncio.is_async_test(item)):
            continue
        # First set up, so last torn down: after the servers and sessions of the test are closed.
        # Parametrised items share one list, hence the question.
        if "no_leaked_tasks" not in item.fixturenames:
            item.fixturenames.insert(0, "no_leaked_tasks")


# Whatever runs while coverage traces takes twice as long. It looks on while modules are imported, and while a test, its
# fixtures and their ends run; not while pytest makes its items, deals them out and reports them.


@contextmanager
def traced_by(tracer: Any) -> Iterator[None]:
    """Trace with *tracer*, or with None not at all, in this thread; threads of tests keep their own."""
    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem() -> Generator[None, object, object]:
    with traced_by(None):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True, specname="pytest_collection_modifyitems")
def _choose_items_untraced() -> Generator[None, object, object]:
    with traced_by(None):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    session.config.stash[TRACER] = sys.gettrace()
    with traced_by(None):
        return (yield)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    with traced_by(item.config.stash[TRACER]):
        return (yield)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    with traced_by(item.config.stash[TRACER]):
        return (yield)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    with traced_by(item.config.stash[TRACER]):
        return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which versions of others' programs the tests ran with, as they noted by `record_property("version", …)`."""
    properties = [each for report in terminalreporter.getreports("passed") for each in report.user_properties]
    versions = sorted({str(value) for name, value in properties if name == "version"})
    if versions:
        terminalreporter.write_line("clients: " + "; ".join(versions))


@pytest.fixture
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Fail the test that leaves a task running on its event loop."""
    before = asyncio.all_tasks()

    yield

    pending = asyncio.all_tasks() - before - {asyncio.current_task()}
    if pending:
        _, pending = await asyncio.wait(pending, timeout=LEAK_GRACE_S)
    leaked = [repr(task) for task in pending]
    for task in pending:
        task.cancel()
    if leaked:
        pytest.fail("tasks still running after the test:\n" + "\n".join(leaked))


@pytest.fixture(scope="module", autouse=True)
def _collect_garbage_of_the_module() -> Iterator[None]:
    """
    Find sockets nobody closed and coroutines nobody awaited in the module that made them.

    They speak up when they are collected, as warnings, which are errors. Once per module, since a collection
    after each test would double the time of the suite.
    """
    yield
    gc.collect()
