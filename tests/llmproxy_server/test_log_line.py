"""Lines that stay lines, and JSON, whatever is said in them."""

import json
import logging
import re
from urllib.parse import quote

import pytest

from llmproxy_server.log_line import MAX_LINE_BYTES, JsonLines, encoded, escape, fitting
from llmproxy_server.log_redact import Redaction
from llmproxy_server.log_text import TextLines
from tests.llmproxy_server.logging_to import HOSTILE, entry, redacting


def assert_harmless(line: str, most: int = MAX_LINE_BYTES) -> None:
    assert len(line.encode()) <= most
    assert line.splitlines() == [line]
    assert all(character.isprintable() for character in line)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_strangers_send_stays_in_its_line(text: str) -> None:
    attempt = {"llm": text, "status": 200, text: None}
    fields: dict[str, object] = {"path": text, "n": 1, "attempts": [attempt], text: text}
    call = {"method": text, "status": 200, "duration_ms": 1.5}

    line = JsonLines().line(entry(text, fields))

    assert_harmless(line)
    assert json.loads(line)["level"] == "info"
    for colour in (False, True):
        form = TextLines(colour=colour)
        for said in (form.line(entry(text, fields)), form.line(entry("exchange", {**fields, **call}))):
            assert_harmless(re.sub("\x1b\\[[0-9]+m", "", said) if colour else said)
            assert len(said.encode()) <= MAX_LINE_BYTES


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_content_has_a_bound_of_its_own(text: str) -> None:
    line = JsonLines(max_content_bytes=5000).line(entry("m", {"a": text}, query=text, answer=text * 2))

    assert_harmless(line, MAX_LINE_BYTES + 2 * 5000 + 60)
    said = json.loads(line)
    assert len(json.dumps(said["query"], ensure_ascii=False).encode()) <= 5000 + 2
    if len(text) > 5000:
        assert said["query"].endswith("…")
        assert said["content_cut"] == ["query", "answer"]
    else:
        assert said["query"] == text.replace("\ud800", "\ufffd")


@pytest.mark.parametrize("most", range(64, 80))
def test_content_is_cut_between_characters_to_the_last_one_that_fits(most: int) -> None:
    text = 'ü"世\n🎉x' * 20

    kept, whole = fitting(Redaction(), text, most)

    assert not whole
    assert text.startswith(kept.removesuffix("…"))
    size = len(encoded(kept).encode()) - 2
    assert most - 4 < size <= most


def test_what_fits_exactly_is_not_cut() -> None:
    assert fitting(Redaction(), "ü" * 32, 64) == ("ü" * 32, True)
    assert fitting(Redaction(), "ü" * 32 + "a", 64)[1] is False


def test_a_line_that_would_be_too_long_is_json_all_the_same() -> None:
    said = json.loads(JsonLines().line(entry("m", {f"k{n}": "v" * 900 for n in range(20)})))

    assert said["truncated"] is True
    assert said["message"] == "m"
    assert said["k19"].endswith("…")


@pytest.mark.parametrize("count", [1, 100, 5000])
def test_of_too_many_values_those_are_kept_that_fit(count: int) -> None:
    deep: dict[str, object] = {"a": [[[["x" * 5000] * 20] * 20] * 20] * 20}
    fields: dict[str, object] = {f"{n}" * 300: deep for n in range(count)}

    line = JsonLines().line(entry("m", {"status": 200, **fields, "last": 1}))

    assert_harmless(line)
    said = json.loads(line)
    assert (said["message"], said["status"]) == ("m", 200)
    assert said.get("truncated", False) is (count > 1)
    assert len(line.encode()) > MAX_LINE_BYTES // 4, "what fits is kept"
    assert "…" in line


def test_a_json_line_has_the_fields_in_their_order_with_their_types() -> None:
    line = JsonLines().line(
        entry("exchange", {"status": 200, "end": "completed", "cost": None, "ok": True, "l": [1.5]})
    )

    assert list(json.loads(line).items()) == [
        ("time", "1970-01-01T00:00:01.500Z"),
        ("level", "info"),
        ("logger", "llmproxy.x"),
        ("message", "exchange"),
        ("status", 200),
        ("end", "completed"),
        ("cost", None),
        ("ok", True),
        ("l", [1.5]),
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1 << 70, -(1 << 70), object(), {1: 2}, b"\xff", {"ü"}])
def test_no_value_breaks_the_json(value: object) -> None:
    line = JsonLines().line(entry("ü", {"value": value, "n": 1}))

    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    assert json.loads(line, parse_constant=no_constant)["n"] == 1


def test_a_text_line_has_its_columns_below_each_other() -> None:
    call = {"method": "GET", "path": "/v1/models", "status": 200, "duration_ms": 1.5, "model": "m"}
    slow = {
        "request_id": "r",
        **call,
        "duration_ms": 12345.6,
        "input_tokens": 9,
        "output_tokens": 3,
        "usage_source": "reported",
    }
    attempt = {"llm": "up", "status": 200, "error": None, "ms": 7.5}

    assert TextLines().line(entry("exchange", call)) == "00:00:01.500 info  200      1.5 ms  GET /v1/models  model=m"
    assert TextLines().line(entry("exchange", {**slow, "attempts": [attempt, attempt]})) == (
        "00:00:01.500 info  200  12345.6 ms  GET /v1/models  tokens=9+3  model=m"
        "  attempts=up:200:7.5,up:200:7.5  request_id=r"
    )
    assert TextLines().line(entry("listening", {"port": 1})) == "00:00:01.500 info  listening  port=1"


def test_colour_is_added_to_the_head_of_a_line_and_nothing_else() -> None:
    call = {"method": "GET", "path": "/", "status": 503, "duration_ms": 1.5}
    plain = TextLines().line(entry("exchange", call))
    coloured = TextLines(colour=True).line(entry("exchange", call))

    assert "\x1b[31m503" in coloured
    assert re.sub("\x1b\\[[0-9]+m", "", coloured) == plain
    assert "\x1b" not in plain


def test_content_for_people_stands_below_its_line() -> None:
    said = TextLines(max_content_bytes=64).line(entry("m", {}, query="user: one\ntwo\x1b[2J", answer="x" * 100))

    first, *rest = said.split("\n")
    assert first.endswith("m")
    assert rest[:4] == ["    query:", "    user: one", "    two\\x1b[2J", "    answer:"]
    assert rest[4] == f"    {'x' * 61}…"


def test_escape_leaves_readable_text_alone() -> None:
    assert escape("Grüße, 世界 🎉") == "Grüße, 世界 🎉"
    assert escape("a\tb\x1b\U000e0041") == "a\\tb\\x1b\\U000e0041"


def test_a_traceback_is_told_harmlessly_and_without_secrets() -> None:
    exception = "Traceback\n  File x\nValueError: broken by sk-secret-1\n\x1b[2J"

    line = JsonLines(redacting("sk-secret-1")).line(entry("failed", exception=exception))
    text = TextLines(redacting("sk-secret-1")).line(entry("failed", exception=exception))

    assert_harmless(line)
    assert "ValueError: broken by ***" in json.loads(line)["exception"]
    first, *rest = text.split("\n")
    assert first.endswith("failed")
    assert rest
    assert all(each.startswith("    ") for each in rest)
    assert "sk-secret" not in line + text
    assert "\x1b" not in text


# -- secrets -------------------------------------------------------------------------------------------------------

AWKWARD = [
    "sk-plain-0123456789",
    'sk-"quoted"\\and/slashed',
    "sk-grün-世界-🎉",
    "line\nfeed\tand\x1besc",
    "a b&c=d%e+f/",
]
"""Values that look otherwise in JSON, in a Python literal or in a URL."""


@pytest.mark.parametrize("secret", AWKWARD)
@pytest.mark.parametrize("form", [JsonLines, TextLines])
def test_a_secret_is_in_no_part_of_a_line(secret: str, form: type[JsonLines] | type[TextLines]) -> None:
    for shown in (
        secret,
        repr(secret),
        json.dumps(secret),
        json.dumps({"k": [secret]}, ensure_ascii=False),
        quote(secret),
        re.sub("%..", lambda escape: escape[0].lower(), quote(secret, safe="")),
    ):
        text = f"before {shown} behind"
        fields: dict[str, object] = {"path": text, "list": [text, {"k": text}], text: 1}
        line = form(redacting(secret)).line(entry(text, fields, exception=text, query=text))
        call = form(redacting(secret)).line(entry("x", {"status": 1, "method": text, "path": text, "duration_ms": 1}))

        for piece in re.findall(r"\w{5,}", secret):
            assert piece not in line + call, (shown, line, call)
        assert "before" in line
        assert "***" in line


def test_secrets_are_cut_out_before_lines_are_cut() -> None:
    for before in (1015, 1020, 1023):
        text = "x" * before + "sk-secret-1"
        for form in (JsonLines(redacting("sk-secret-1")), TextLines(redacting("sk-secret-1"))):
            assert "sk-s" not in form.line(entry(text, {"path": text, "status": 1, "list": [text]}))


@pytest.mark.parametrize("length", range(8, 40))
def test_no_part_of_a_secret_is_left_where_content_is_cut(length: int) -> None:
    secret = "".join(chr(97 + n % 26) for n in range(length)).upper()
    redact = redacting(secret)

    for start in range(60, 64):
        kept, _ = fitting(redact, "-" * start + secret + "-" * 100, 64)
        assert secret[:1] not in kept
    # What is looked at is bounded too, and may end within a secret: here are so many that little is left of it.
    kept, _ = fitting(redact, secret * 2000, 5000)
    assert set(kept) <= {"*", "…"}


def test_a_secret_that_holds_another_goes_whole() -> None:
    line = JsonLines(redacting("sk-secret", "sk-secret-and-more")).line(entry("with sk-secret-and-more."))

    assert json.loads(line)["message"] == "with ***."


def test_the_token_of_a_bearer_is_cut_out_whoever_wrote_it() -> None:
    line = JsonLines().line(entry("upstream said: Bearer abcdefgh12345678.x is wrong", {"x": "bearer  AbCdEfGh1"}))

    assert json.loads(line)["message"] == "upstream said: Bearer *** is wrong"
    assert json.loads(line)["x"] == "bearer ***"


def test_a_value_too_short_to_be_a_credential_leaves_the_words_of_a_line_alone() -> None:
    for form in (JsonLines(redacting("x")), TextLines(redacting("x"))):
        assert "exchange" in form.line(entry("exchange"))


def test_levels_of_others_have_their_own_names() -> None:
    said = entry("m")
    said.level = logging.WARNING + 3

    assert json.loads(JsonLines().line(said))["level"] == "level 33"


def test_of_a_long_text_people_see_how_it_begins_and_how_it_ends() -> None:
    text = "\n".join(f"line {number}" for number in range(100))
    said = TextLines().line(entry("exchange", {}, query=text)).splitlines()

    assert [line.strip() for line in said[1:4]] == ["query:", "line 0", "line 1"]
    assert said[-1].strip() == "line 99"
    assert [line.strip() for line in said if "left out" in line] == ["… 40 lines left out …"]
