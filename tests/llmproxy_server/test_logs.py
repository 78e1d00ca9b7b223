"""Logs: lines that stay lines, whatever is said in them."""

import asyncio
import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest

from llmproxy_core.config import Config, LogConfig, ServerConfig, structure
from llmproxy_core.plugins import Registry
from llmproxy_core.secret import Secret
from llmproxy_server import logs
from llmproxy_server.log_line import MAX_LINE_BYTES, JsonLines, TextLines, escape
from tests.proxy import STANDARD_PLUGINS, openai_at

HOSTILE = [
    "a\nb",
    "a\r\nb",
    "\x1b[2J\x1b[31mred",
    "\x9b31m",
    "a\u2028b\u2029c\x85d",
    "\u202egnp.exe",
    "\x00\x07\x08",
    "\ud800",
    "x" * 1_000_000,
    "ü" * 100_000,
    '{"level":"error"}\n{"level":"info"}',
]


def record(
    message: str, fields: dict[str, object] | None = None, error: BaseException | None = None
) -> logging.LogRecord:
    info = None if error is None else (type(error), error, error.__traceback__)
    made = logging.LogRecord("llmproxy.x", logging.INFO, "f", 1, "%s", (message,), info)
    made.fields = fields or {}
    return made


def assert_harmless(line: str) -> None:
    data = line.encode()
    assert len(data) <= MAX_LINE_BYTES
    assert line.splitlines() == [line]
    assert all(character.isprintable() for character in line)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_strangers_send_stays_in_its_line(text: str) -> None:
    fields: dict[str, object] = {"path": text, "n": 1, "attempts": [[text, 200, None]]}

    line = JsonLines([]).format(record(text, fields))
    plain = TextLines([]).format(record(text, fields))
    access = TextLines([]).format(record("exchange", {**fields, "method": text, "status": 200}))

    assert_harmless(line)
    assert json.loads(line)["level"] == "info"
    assert_harmless(plain)
    assert_harmless(access)


def test_a_line_that_would_be_too_long_is_json_all_the_same() -> None:
    said = json.loads(JsonLines([]).format(record("m", {f"k{n}": "v" * 900 for n in range(40)})))

    assert said["truncated"] is True
    assert said["message"] == "m"


def test_a_json_line_has_the_fields_of_the_exchange() -> None:
    said = json.loads(JsonLines([]).format(record("exchange", {"status": 200, "end": "completed", "cost": None})))

    assert said.pop("time").endswith("Z")
    assert said == {
        "level": "info",
        "logger": "llmproxy.x",
        "message": "exchange",
        "status": 200,
        "end": "completed",
        "cost": None,
    }


def test_a_text_line_reads_like_a_sentence() -> None:
    fields = {"method": "GET", "path": "/v1/models", "status": 200, "duration_ms": 1.5, "model": "m"}

    assert TextLines([]).format(record("exchange", fields))[13:] == "info  GET /v1/models 200 1.5 ms model=m"


def raised() -> Exception:
    try:
        raise ValueError("broken by sk-secret\n\x1b[2J")
    except ValueError as error:
        return error


def test_a_traceback_is_told_harmlessly_and_without_secrets() -> None:
    secrets = [Secret("sk-secret")]

    line = JsonLines(secrets).format(record("failed", error=raised()))
    text = TextLines(secrets).format(record("failed", error=raised()))

    assert_harmless(line)
    assert "ValueError: broken by ***" in json.loads(line)["exception"]
    first, *rest = text.split("\n")
    assert first.endswith("failed")
    assert rest
    assert all(each.startswith("    ") for each in rest)
    assert "sk-secret" not in line + text
    assert "\x1b" not in text


def test_secrets_are_cut_out_before_lines_are_cut() -> None:
    text = "x" * 1020 + "sk-secret"

    for form in (JsonLines([Secret("sk-secret")]), TextLines([Secret("sk-secret")])):
        line = form.format(record(text, {"path": text, "status": 1, "list": [text]}))
        assert "sk-s" not in line


def test_escape_leaves_readable_text_alone() -> None:
    assert escape("Grüße, 世界 🎉") == "Grüße, 世界 🎉"
    assert escape("a\tb\x1b") == "a\\tb\\x1b"


# -- set-up --------------------------------------------------------------------------------------------------------


@pytest.fixture
def restored() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("llmproxy")
    before = (list(root.handlers), root.level, ours.level)
    yield
    for handler in list(root.handlers):
        if handler not in before[0]:
            root.removeHandler(handler)
    root.setLevel(before[1])
    ours.setLevel(before[2])
    logging.captureWarnings(False)


def config_with(**keys: Any) -> Config:
    return Config(server=ServerConfig(log=LogConfig(**keys)))


@pytest.mark.usefixtures("restored")
def test_auto_is_json_where_no_person_reads() -> None:
    out = io.StringIO()
    logs.configure(config_with(), out)

    logging.getLogger("llmproxy").info("hello")

    assert json.loads(out.getvalue())["message"] == "hello"


@pytest.mark.usefixtures("restored")
def test_levels_are_as_configured() -> None:
    out = io.StringIO()
    logs.configure(config_with(level="warn", format="text"), out)
    logging.getLogger("llmproxy").info("no")
    logging.getLogger("llmproxy.access").warning("yes")
    logging.getLogger("somebody.else").info("no")
    logs.configure(config_with(level="trace", format="text"), out)
    logging.getLogger("somebody.else").debug("trace shows it")
    logging.getLogger("llmproxy").log(logs.TRACE, "finest")

    said = out.getvalue().splitlines()
    assert [line.split(" ", 1)[1] for line in said] == ["warn  yes", "debug trace shows it", "trace finest"]
    assert logs.level_of(ServerConfig(debug=True)) == logging.DEBUG
    assert logs.level_of(ServerConfig(debug=True, log=LogConfig(level="error"))) == logging.ERROR


@pytest.mark.usefixtures("restored")
async def test_lines_of_one_moment_are_written_together_and_warnings_at_once() -> None:
    writes: list[str] = []
    written = asyncio.Event()

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            writes.append(text)
            written.set()
            return len(text)

    logs.configure(config_with(format="text"), Stream())
    ours = logging.getLogger("llmproxy")
    ours.info("one")
    ours.info("two")
    assert not writes
    await asyncio.wait_for(written.wait(), 5)
    assert writes[0].count("\n") == 2
    ours.info("three")
    ours.warning("four")
    assert writes[1].count("\n") == 2


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("form", ["json", "text"])
def test_what_is_added_to_a_batch_reads_as_its_record_would(form: str) -> None:
    out = io.StringIO()
    handler = logs.configure(config_with(format=form), out)
    fields = {"method": "GET", "path": "/x\n", "status": 200, "duration_ms": 1.5, "attempts": [["up", 200, None]]}

    handler.add("llmproxy.access", logging.INFO, fields)
    logging.getLogger("llmproxy.access").info("exchange", extra={"fields": fields})

    added, logged = out.getvalue().splitlines()
    time = re.compile(r"\d\d:\d\d:\d\d\.\d+")
    assert time.sub("", added) == time.sub("", logged)
    assert "200" in added


@pytest.mark.usefixtures("restored")
async def test_what_is_added_waits_for_its_batch_and_a_warning_is_written_at_once() -> None:
    out = io.StringIO()
    handler = logs.configure(config_with(), out)

    handler.add("llmproxy.access", logging.INFO, {"n": 1})
    waited = out.getvalue()
    handler.add("llmproxy.access", logging.WARNING, {"n": 2})

    assert waited == ""
    assert [json.loads(line)["n"] for line in out.getvalue().splitlines()] == [1, 2]


@pytest.mark.usefixtures("restored")
def test_what_cannot_be_said_costs_its_own_line_only(capsys: pytest.CaptureFixture[str]) -> None:
    class Unspeakable:
        def __str__(self) -> str:
            raise ZeroDivisionError

    out = io.StringIO()
    handler = logs.configure(config_with(), out)

    handler.add("llmproxy.access", logging.INFO, {"x": Unspeakable()})
    handler.add("llmproxy.access", logging.INFO, {"n": 2})

    assert [json.loads(line)["n"] for line in out.getvalue().split("\n") if line] == [2]
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.usefixtures("restored")
def test_a_stream_that_is_gone_stops_nobody() -> None:
    out = io.StringIO()
    logs.configure(config_with(), out)
    out.close()

    logging.getLogger("llmproxy").error("nobody reads this")


@pytest.mark.usefixtures("restored")
def test_the_keys_of_the_configuration_never_show() -> None:
    mapping = openai_at("http://127.0.0.1:9/v1", token_env="KEY", headers={"x-team": {"env": "TEAM"}})
    config, _ = structure(mapping, Registry.of(*STANDARD_PLUGINS), {"KEY": "sk-the-key", "TEAM": "the-team"})
    out = io.StringIO()
    logs.configure(config, out)

    logging.getLogger("llmproxy").error("sent sk-the-key for the-team", extra={"fields": {"x": "sk-the-key"}})

    assert "***" in out.getvalue()
    assert "the-key" not in out.getvalue()
    assert "the-team" not in out.getvalue()


def test_a_value_too_short_to_be_a_credential_leaves_the_words_of_a_line_alone() -> None:
    for form in (JsonLines([Secret("x")]), TextLines([Secret("x")])):
        assert "exchange" in form.format(record("exchange"))
