"""The parent knows which LLMs are out of service by what its workers answer, in whatever order they do."""

from __future__ import annotations

import msgspec
import pytest

from llmproxy_server.process.drains import Drains
from llmproxy_server.process.messages import NO_ANSWER, AskAll, Drain, Reply

ASKED = AskAll(1, "POST", "/providers", "", [], b"")
"""What it asks for is told by the answers."""


def done(llm: str = "a", drained: bool = True) -> Reply:
    said = {"llm": llm, "drained": drained, "in_flight": 3}
    return Reply(200, "application/json", [], msgspec.json.encode(said))


class Parent:
    """Drains, and what it has told the workers."""

    def __init__(self, *names: str) -> None:
        self.told: list[tuple[str, bool]] = []
        self.drains = Drains(names, self._tell)

    def _tell(self, message: Drain) -> None:
        self.told.append((message.llm, message.drained))


def test_the_first_worker_that_has_done_it_decides_and_all_are_told_once() -> None:
    parent = Parent()
    number = parent.drains.number()
    parent.drains.heard(number, ASKED, NO_ANSWER)
    assert (parent.drains.names, parent.told) == ([], [])

    parent.drains.heard(number, ASKED, done())
    parent.drains.heard(number, ASKED, done())

    assert (parent.drains.names, parent.told) == (["a"], [("a", True)])


def test_of_two_changes_the_one_that_was_asked_for_later_holds_however_late_the_answers_come() -> None:
    parent = Parent()
    first, second = parent.drains.number(), parent.drains.number()

    parent.drains.heard(second, ASKED, done(drained=False))
    parent.drains.heard(first, ASKED, done())

    assert (parent.drains.names, parent.told) == ([], [("a", False)])


def test_a_late_answer_about_one_llm_holds_whatever_became_of_others_since() -> None:
    parent = Parent()
    first, second = parent.drains.number(), parent.drains.number()

    parent.drains.heard(second, ASKED, done("b"))
    parent.drains.heard(first, ASKED, done("a"))

    assert parent.drains.names == ["a", "b"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/providers", 200), ("POST", "/other", 200), ("POST", "/providers", 404), ("POST", "/providers", 503)],
)
def test_other_questions_and_refusals_change_nothing(method: str, path: str, status: int) -> None:
    parent = Parent("b")
    reply = done()
    reply.status = status

    parent.drains.heard(parent.drains.number(), AskAll(1, method, path, "", [], b""), reply)

    assert (parent.drains.names, parent.told) == (["b"], [])


def test_what_another_version_was_told_meanwhile_holds_here_too() -> None:
    parent = Parent("a", "b")
    before = parent.drains.number()

    parent.drains.change({"a": False, "c": True})
    parent.drains.heard(before, ASKED, done())

    assert (parent.drains.names, parent.told) == (["b", "c"], [("a", False), ("c", True)])


def test_what_is_not_configured_any_more_is_forgotten() -> None:
    parent = Parent("a", "b")

    parent.drains.keep({"b": None, "c": None})
    parent.drains.keep({"a": None, "b": None})

    assert parent.drains.names == ["b"]
