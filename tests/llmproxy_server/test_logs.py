"""The logs of a process: set up, set up anew while lines wait, and never lost when it ends."""

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
import structlog

from llmproxy_core.config import LogConfig, ServerConfig, structure
from llmproxy_core.dialect import Operation
from llmproxy_core.outcome import End
from llmproxy_core.plugins import Registry
from llmproxy_core.secret import Secret
from llmproxy_server import log_events, logs
from llmproxy_server.access_line import AccessLine, AttemptLine
from llmproxy_server.log_line import TRACE
from tests.llmproxy_server.logging_to import HOSTILE, config_with, logging_restored, read
from tests.proxy import STANDARD_PLUGINS, openai_at


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    with logging_restored():
        yield


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_auto_is_json_where_no_person_reads() -> None:
    out = io.StringIO()
    handler = logs.configure(config_with(), out)

    logging.getLogger("llmproxy").info("hello")

    assert [line["message"] for line in read(out, handler)] == ["hello"]


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_on_a_terminal_it_is_text_in_colour_unless_that_is_unwanted(
    variables: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    out = Terminal()
    handler = logs.configure(config_with(), out)

    logging.getLogger("llmproxy").info("hello")
    handler.flush()

    assert out.getvalue().endswith("hello\n")
    assert ("\x1b[" in out.getvalue()) is coloured


def test_text_that_was_asked_for_has_no_colour_in_a_file() -> None:
    out = io.StringIO()
    handler = logs.configure(config_with(format="text"), out)

    logging.getLogger("llmproxy").warning("hello")
    handler.flush()

    assert out.getvalue()[13:] == "warn  hello\n"


def test_levels_are_as_configured() -> None:
    out = io.StringIO()
    handler = logs.configure(config_with(level="warn", format="text"), out)
    logging.getLogger("llmproxy").info("no")
    logging.getLogger("llmproxy.access").warning("yes")
    logging.getLogger("somebody.else").info("no")
    logs.configure(config_with(level="trace", format="text"), out)
    logging.getLogger("somebody.else").debug("trace shows it")
    logging.getLogger("llmproxy").log(TRACE, "finest")
    handler.flush()

    said = out.getvalue().splitlines()
    assert [line.split(" ", 1)[1] for line in said] == ["warn  yes", "debug trace shows it", "trace finest"]
    assert logs.level_of(ServerConfig(debug=True)) == logging.DEBUG
    assert logs.level_of(ServerConfig(debug=True, log=LogConfig(level="error"))) == logging.ERROR


def test_content_is_kept_for_those_lines_alone_that_hold_it() -> None:
    def kept(**keys: Any) -> int:
        return logs.content_bytes(ServerConfig(log=LogConfig(**keys)))

    assert kept() == kept(level="debug") == 0
    assert kept(level="trace") == kept(log_content=True) == 64 * 8192
    assert kept(log_content=True, max_content_bytes=64) == 64 << 10
    assert kept(log_content=True, max_content_bytes=1 << 20) == 4 << 20


# -- what is logged ------------------------------------------------------------------------------------------------


def test_what_is_added_reads_as_its_record_would() -> None:
    out = io.StringIO()
    handler = logs.configure(config_with(), out)
    attempt = AttemptLine("up", 200, None, 1.5)
    line = AccessLine(
        "GET", "/x\n", 200, 1.5, "r", "127.0.0.1", "v1", Operation.CHAT, end=End.FAILED, attempts=[attempt]
    )
    told = {
        "method": "GET",
        "path": "/x\n",
        "status": 200,
        "duration_ms": 1.5,
        "request_id": "r",
        "client": "127.0.0.1",
        "route": "v1",
        "operation": "chat",
        "end": "failed",
        "attempts": [{"llm": "up", "status": 200, "error": None, "ms": 1.5}],
        "cache": "miss",
    }

    def content() -> dict[str, str]:
        return {"query": "q"}

    handler.add("llmproxy.access", logging.INFO, line, more={"cache": "miss"}, content=content)
    logging.getLogger("llmproxy.access").info("exchange", extra={"fields": told, "content": content})

    added, logged = read(out, handler)
    assert added.pop("time")
    assert logged.pop("time")
    assert added == logged
    assert (added["status"], added["query"]) == (200, "q")


def test_a_record_is_told_as_it_was_when_it_was_logged() -> None:
    out = io.StringIO()
    handler = logs.configure(config_with(), out)
    values, deep = [1], {"k": [{"n": 1}]}

    logging.getLogger("llmproxy").info("values %s", values, extra={"fields": {"deep": deep}})
    values.append(2)
    deep["k"][0]["n"] = 2
    try:
        raise ValueError("told")
    except ValueError as error:
        logging.getLogger("llmproxy").exception("broken")
        error.__traceback__ = None  # as the edge does, to let go of what frames hold

    first, second = read(out, handler)
    assert (first["message"], first["deep"]) == ("values [1]", {"k": [{"n": 1}]})
    assert "test_logs.py" in second["exception"]
    assert second["exception"].endswith("ValueError: told\n")


def test_a_record_that_cannot_be_made_is_a_line_and_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    class Unspeakable:
        def __str__(self) -> str:
            raise ZeroDivisionError("sk-never-shown")

    out = io.StringIO()
    handler = logs.configure(config_with(), out)
    unspeakable: list[tuple[str, tuple[object, ...], dict[str, object]]] = [
        ("%s", (Unspeakable(),), {}),
        ("%d", ("no number",), {}),
        ("x", (), {"x": Unspeakable()}),
        ("two", (), {}),
    ]
    for message, arguments, fields in unspeakable:  # straight to the handler: those of pytest do raise
        record = logging.LogRecord("llmproxy", logging.INFO, "", 0, message, arguments, None)
        record.fields = fields
        handler.handle(record)

    lines = read(out, handler)
    assert [line.get("error_type") for line in lines] == ["ZeroDivisionError", "TypeError", "ZeroDivisionError", None]
    assert lines[-1]["message"] == "two"
    assert capfd.readouterr() == ("", "")
    assert "sk-never-shown" not in out.getvalue()


def test_a_stream_that_is_gone_stops_nobody() -> None:
    out = io.StringIO()
    handler = logs.configure(config_with(), out)
    out.close()

    logging.getLogger("llmproxy").error("nobody reads this")
    handler.flush()

    assert handler.dropped == logs.dropped() == 1


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_secret_beside_anything_at_all_is_in_no_line(form: str, text: str) -> None:
    secret = "sk-the-key-0123"
    mapping = openai_at("http://127.0.0.1:9/v1", token_env="KEY", headers={"x-team": {"env": "TEAM"}})
    config, _ = structure(mapping, Registry.of(*STANDARD_PLUGINS), {"KEY": secret, "TEAM": "the-team-name"})
    config = attrs.evolve(
        config,
        server=ServerConfig(log=LogConfig(format=form, level="trace", log_content=True)),  # type: ignore[arg-type]
    )
    logging.getLogger().handlers.clear()  # pytest's own: what they capture must be text
    out = io.StringIO()
    handler = logs.configure(config, out)
    both = f"{text}{secret}{text}the-team-name{text}"

    def content() -> dict[str, str]:
        return {"query": both}

    try:
        raise ValueError(both)
    except ValueError:
        logging.getLogger("llmproxy").exception(both, extra={"fields": {"x": both, "y": [both]}, "content": content})
    logging.getLogger(both).error("sent %s", both)
    handler.add("llmproxy.access", logging.INFO, {"path": both, "l": {both: [both]}}, content=content)
    log_events.get_logger("llmproxy.x").error("event", value=both)
    handler.flush(20)

    said = out.getvalue()
    assert len(said.encode()) > 4 * min(len(text), 4000)
    if len(text) < 1000:
        assert said.count("***") > 10
    for piece in ("the-key", "sk-the", "0123", "the-team", "am-name"):
        assert piece not in said
    assert handler.dropped == 0


# -- set up anew ---------------------------------------------------------------------------------------------------


class Gated(io.StringIO):
    """Takes nothing until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        from threading import Event

        self.open = Event()
        self.asked = Event()

    def write(self, text: str) -> int:
        self.asked.set()
        assert self.open.wait(20)
        return super().write(text)


def test_set_up_anew_while_lines_wait_none_is_lost_and_no_secret_of_either_shows() -> None:
    def config(key: str, **log: Any) -> Any:
        mapping = openai_at("http://127.0.0.1:9/v1", token_env="KEY")
        made, _ = structure(mapping, Registry.of(*STANDARD_PLUGINS), {"KEY": key})
        return attrs.evolve(made, server=ServerConfig(log=LogConfig(**log)))

    out = Gated()
    log = logging.getLogger("llmproxy")
    first = logs.configure(config("sk-first-key"), out)
    log.info("begin")
    assert out.asked.wait(20)
    log.info("one sk-first-key sk-second-key")
    second = logs.configure(config("sk-second-key", format="text", level="debug"), out)
    log.info("two sk-first-key sk-second-key")
    log.debug("now it is said")
    third = logs.configure(config("sk-third-key", format="json", level="warn"), out)
    log.info("not any more")
    log.warning("three sk-first-key sk-second-key sk-third-key")
    out.open.set()

    assert first is second is third
    assert [line["message"] for line in read(out, third)] == [
        "begin",
        "one *** ***",
        "two *** ***",
        "now it is said",
        "three *** *** ***",
    ]
    assert logs.dropped() == 0


def test_a_thousand_reloads_leave_one_handler_one_thread_and_a_bounded_memory_of_secrets() -> None:
    from threading import active_count

    out = io.StringIO()
    handler = logs.configure(config_with(), out)
    logging.getLogger("llmproxy").info("x")
    handler.flush()
    threads = active_count()

    for n in range(1000):
        handler.secrets = (Secret(f"sk-secret-{n}"), *handler.secrets)
        assert logs.configure(config_with(), out) is handler
        logging.getLogger("llmproxy").info("x")

    assert len(read(out, handler)) == 1001
    assert len(handler.secrets) <= 256
    assert active_count() == threads
    assert list(logs.handlers()) == [handler]


def test_another_stream_takes_over_with_what_was_known() -> None:
    old, new = io.StringIO(), io.StringIO()
    before = logs.configure(config_with(), old)
    before.secrets = (Secret("sk-known-before"),)
    logging.getLogger("llmproxy").info("to the old one")

    handler = logs.configure(config_with(), new)
    logging.getLogger("llmproxy").info("with sk-known-before")

    assert [line["message"] for line in read(new, handler)] == ["with ***"]
    assert json.loads(old.getvalue())["message"] == "to the old one", "it was written before it was let go"
    assert list(logs.handlers()) == [handler]


# -- events --------------------------------------------------------------------------------------------------------


@pytest.fixture
def unconfigured_structlog() -> Iterator[None]:
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("unconfigured_structlog")
def test_events_are_lines_like_all_others_their_values_as_fields() -> None:
    out = io.StringIO()
    handler = logs.configure(config_with(), out)
    log = log_events.get_logger()

    log.info("reloaded 100%", generation=2, cause="SIGHUP", logger="forged", level="forged", event="forged")
    log.debug("below the level", n=1)
    try:
        raise ValueError("why")
    except ValueError as error:
        known = error
        log.exception("again")
    log.error("broken", exc_info=known, part="x")
    with structlog.contextvars.bound_contextvars(worker=3):
        log.warning("bound")

    first, third, second, fourth = read(out, handler)
    assert (first["message"], first["generation"], first["cause"]) == ("reloaded 100%", 2, "SIGHUP")
    assert (first["logger"], first["level"]) == ("llmproxy", "info")
    assert (first["logger_"], first["level_"]) == ("forged", "forged")
    assert second["part"] == "x"
    assert second["exception"].endswith("ValueError: why\n")
    assert third["exception"].endswith("ValueError: why\n")
    assert (fourth["level"], fourth["worker"]) == ("warn", 3)


@pytest.mark.usefixtures("unconfigured_structlog")
def test_those_who_use_structlog_themselves_write_to_the_same_log(capfd: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    handler = logs.configure(config_with(), out)
    theirs = structlog.get_logger("llmproxy.their_plugin")
    log_events.warm_up()

    theirs.info("hello", n=1)
    theirs.debug("below the level")
    structlog.get_logger("llmproxy").warning("%s placeholders", "with")

    first, second = read(out, handler)
    assert (first["logger"], first["message"], first["n"]) == ("llmproxy.their_plugin", "hello", 1)
    assert second["message"] == "with placeholders"
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("unconfigured_structlog")
def test_an_event_is_a_record_for_those_who_listen_otherwise(caplog: pytest.LogCaptureFixture) -> None:
    log_events.get_logger("llmproxy").warning("said", n=1)

    assert caplog.records[0].getMessage() == "said"
    assert vars(caplog.records[0])["fields"] == {"n": 1}


# -- the end of a process ------------------------------------------------------------------------------------------

SETUP = """
import logging, os, signal, sys, threading
from llmproxy_core.config import Config
from llmproxy_server import logs
handler = logs.configure(Config())
log = logging.getLogger("llmproxy")
for n in range(2000):
    log.info("line", extra={"fields": {"n": n}})
"""
ENDS = {
    "the end of the program": "",
    "sys.exit": "sys.exit(3)",
    "an exception": "raise RuntimeError('broken by sk-secret-value')",
    "an exception in a thread": "thread = threading.Thread(target=lambda: 1 / 0)\nthread.start()\nthread.join()",
    "SIGTERM, handled": "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\nos.kill(os.getpid(), signal.SIGTERM)",
    "SIGINT": "os.kill(os.getpid(), signal.SIGINT)\nimport time\ntime.sleep(60)",
    "os._exit": "logs.flush()\nos._exit(1)",
}


@pytest.mark.parametrize("how", ENDS)
def test_a_process_that_ends_loses_nothing_that_was_logged(how: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SETUP + ENDS[how]], capture_output=True, text=True, timeout=60, check=False
    )

    lines = [json.loads(line) for line in ran.stderr.splitlines() if line.startswith("{")]
    assert [line["n"] for line in lines if "n" in line] == list(range(2000))
    if how == "an exception":
        assert ran.returncode == 1
        assert ran.stderr.splitlines()[2000:] == [ran.stderr.splitlines()[-1]], "one line, no traceback beside it"
        assert lines[-1]["level"] == "error"
        assert lines[-1]["exception"].endswith("RuntimeError: broken by sk-secret-value\n")
    if how == "an exception in a thread":
        assert len(ran.stderr.splitlines()) == 2001, "one line, no traceback between the others"
        assert lines[-1]["exception"].endswith("ZeroDivisionError: division by zero\n")


def test_the_secrets_of_the_configuration_are_not_in_the_last_words_of_a_crash() -> None:
    code = SETUP + (
        "from llmproxy_core.secret import Secret\n"
        "handler.secrets = (Secret('sk-secret-value'),)\n"
        "logs.configure(Config())\n"
        "raise RuntimeError('broken by sk-secret-value')"
    )

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert "broken by ***" in json.loads(ran.stderr.splitlines()[-1])["exception"]
    assert "sk-secret-value" not in ran.stderr


def test_a_stuck_output_holds_up_the_end_of_a_process_for_a_moment_only() -> None:
    reader, descriptor = os.pipe()
    code = SETUP + "print('ending', flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", code], stderr=descriptor, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ending\n"
        assert process.wait(30) == 0
    os.close(descriptor)
    os.close(reader)


def test_a_process_says_nothing_of_its_log_when_nobody_reads_it() -> None:
    """As `llmproxy serve 2>&1 | head -1`."""
    reader, descriptor = os.pipe()
    os.close(reader)
    ran = subprocess.run(
        [sys.executable, "-c", SETUP + "handler.flush(20)\nprint(handler.dropped)"],
        stderr=descriptor,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(descriptor)

    assert ran.returncode == 0
    assert ran.stdout == "2000\n"


def test_structlog_is_not_imported_before_it_is_needed() -> None:
    """It takes a tenth of a second, which a start can do without."""
    code = "import sys\nimport llmproxy_server.server\nassert 'structlog' not in sys.modules"

    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)


def test_the_thread_imports_it_beforehand() -> None:
    serve = "import asyncio\nasync def serve():\n    handler.serve(asyncio.get_running_loop())\nasyncio.run(serve())\n"
    code = SETUP + serve + "handler.flush(20)\nhandler._writer.close()\nassert 'structlog' in sys.modules"

    subprocess.run([sys.executable, "-c", code], timeout=60, check=True, stderr=subprocess.DEVNULL)
