"""The line of a value in a file."""

from time import perf_counter

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core.config_path import Place
from llmproxy_server.statement import Statements

TEXT = '''\
# a comment

[server]
port = 3000
note = """
port = 1
[llm.x]
"""

[llm.a]
models = [   # first
    "x",
    "]",
    "y",
]
headers = {
    a = "b",
    c = { env = "d" },
}
"quoted.key" = 1
a.b.c = 2; 
'''.replace("; ", "")  # noqa: W291

ROUTES = """\
[[route]]
path_prefix = "/a"
[[route]]
path_prefix = "/b"
processors = ["x"]
[route.extra]
y = 1
"""


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("server",), 3),
        (("server", "port"), 4),
        (("server", "note"), 5),
        (("llm", "x"), 10),
        (("llm", "a"), 10),
        (("llm", "a", "models"), 11),
        (("llm", "a", "models", 0), 12),
        (("llm", "a", "models", 1), 13),
        (("llm", "a", "models", 7), 11),
        (("llm", "a", "headers", "a"), 17),
        (("llm", "a", "headers", "c", "env"), 18),
        (("llm", "a", "headers", "d"), 16),
        (("llm", "a", "quoted.key"), 20),
        (("llm", "a", "a", "b", "c"), 21),
        (("llm", "a", "base_url"), 10),
        (("route",), 22),
        (("route", 0), 22),
        (("route", 1), 24),
        (("route", 1, "path_prefix"), 25),
        (("route", 1, "processors", 0), 26),
        (("route", 1, "target_llm"), 24),
        (("route", 1, "extra", "y"), 28),
        (("nothing", "here"), None),
        ((), None),
    ],
)
def test_a_value_is_found_where_it_is_written(place: Place, line: int | None, newline: str) -> None:
    text = (TEXT + ROUTES).replace("\n", newline)
    tomli.loads(text)

    assert Statements(text).line(place) == line


@given(st.lists(st.sampled_from(["# c", "", "  ", "\t"]), max_size=5), st.integers(0, 20))
def test_blank_lines_and_comments_do_not_move_it(above: list[str], routes: int) -> None:
    text = "\n".join([*above, *["[[route]]"] * routes, "[last]", "key = 1"])

    assert Statements(text).line(("last", "key")) == len(above) + routes + 2


@pytest.mark.parametrize(
    "statement",
    [
        'x = """a\n[ " "" \\""" \n{""""',
        'x = """\\\n  a"""""',
        "x = '''a\n[ \\ ' '' {\n''''",
        'x = [ \']\', # ]\n "]\\"[", { a = """\n]""" } ]',
        "x = {\n a = 1, # }\n\n b = [\n[], ],\n}",
        '"a]\\"[" . b = 1',
        "[\"a[\" . 'b]]']",
        "x = ''''''",
        'x = ""',
    ],
)
def test_a_statement_ends_where_its_brackets_and_strings_do(statement: str) -> None:
    text = f"{statement}\n[last]\nkey = 1"
    tomli.loads(text)

    assert Statements(text).line(("last", "key")) == statement.count("\n") + 3


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("x", 0), 2),
        (("x", 1), 4),
        (("x", 1, "b"), 6),
        (("x", 1, "b", 1), 9),
        (("x", 1, "c"), 11),
        (("x", 2), 14),
        (("last",), 16),
    ],
)
def test_a_value_in_brackets_is_found_on_its_own_line(place: Place, line: int) -> None:
    text = '''x = [ # {
  "[",
  # {
  {
    a = "}",
    b = [ """
 ] "
 """, # [
      1,
    ],
    c = """
  d = 1 {
""" },
  5
]
last = 1
'''
    tomli.loads(text)

    assert Statements(text).line(place) == line


def test_a_value_deep_in_a_long_array_is_found_in_bearable_time() -> None:
    text = "x = [\n" + "".join(f"{{ a = {number},\n b = 1 }},\n" for number in range(10_000)) + "]"
    started = perf_counter()

    assert Statements(text).line(("x", 7_000, "b")) == 14_003
    assert perf_counter() - started < 20


def test_a_long_array_is_passed_in_bearable_time() -> None:
    """Trying after each of its lines whether it is over would take minutes."""
    text = "x = [\n" + '"a",\n' * 20_000 + "]\n[last]\nkey = 1"
    started = perf_counter()

    assert Statements(text).line(("last", "key")) == 20_004
    assert perf_counter() - started < 20
