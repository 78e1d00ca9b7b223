"""Calls and results without ids are paired by their names, in order."""

from __future__ import annotations

from llmproxy_gemini.call_ids import CallIds


def test_a_result_has_the_id_of_its_call() -> None:
    ids = CallIds("facts")
    given, made = ids.call("a", "f"), ids.call(None, "f")

    assert (ids.result("a", "f"), ids.result(None, "f")) == (given, made)


def test_a_result_without_an_id_answers_a_call_without_one_first() -> None:
    ids = CallIds("facts")
    given, made = ids.call("a", "f"), ids.call(None, "f")

    assert (ids.result(None, "f"), ids.result("a", "f")) == (made, given)


def test_a_result_without_an_id_answers_a_call_with_one_where_no_other_waits() -> None:
    ids = CallIds("facts")
    given = ids.call("a", "f")

    assert ids.result(None, "f") == given


def test_an_id_of_nobody_is_that_of_the_first_call_of_the_name_that_has_none() -> None:
    ids = CallIds("facts")
    first, second = ids.call(None, "f"), ids.call(None, "f")

    assert (ids.result("x", "f"), ids.result("y", "f"), ids.result("z", "f")) == (first, second, "z")
