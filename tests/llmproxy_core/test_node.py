"""Values of conversations, and what is made once a call: attrs classes to who uses them, made in C underneath."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any, cast

import attrs
import msgspec
import pytest

from llmproxy_core import chat
from llmproxy_core.attempt import Attempt
from llmproxy_core.chat import (
    BuiltinTool,
    ChatRequest,
    Message,
    OpaquePart,
    Raw,
    ReasoningConfig,
    TextPart,
    Tool,
    ToolChoice,
    changed,
    node,
    remember,
)
from llmproxy_core.errors import ProxyError
from llmproxy_core.exchange import Exchange
from llmproxy_core.llm import UpstreamRequest
from llmproxy_core.node import record
from llmproxy_core.relay import Whole
from llmproxy_core.request import Request

NODES = [it for name in chat.__all__ if isinstance(it := getattr(chat, name), type) and issubclass(it, msgspec.Struct)]
MESSAGE: Any = Message
SAID = Message("user", (TextPart("hi"),), extra={"a": b"1"})


def test_there_are_nodes() -> None:
    assert {Message, TextPart, Tool, ChatRequest, Raw} <= set(NODES)


@pytest.mark.parametrize("node", NODES, ids=lambda it: it.__name__)
def test_a_node_is_an_attrs_class_with_all_of_its_fields(node: Any) -> None:
    said: Any = node

    assert attrs.has(node)
    assert sorted(field.name for field in attrs.fields(node)) == sorted(said.__struct_fields__)
    assert {field.name for field in attrs.fields(node)} <= set(node.__annotations__)
    assert node.__module__.startswith("llmproxy_core.chat.")


@pytest.mark.parametrize("change", [lambda it: attrs.evolve(it, role="tool"), lambda it: changed(it, role="tool")])
def test_a_changed_node_forgets_the_bytes_it_was_read_from_and_keeps_the_rest(change: Any) -> None:
    read = remember(Message("user", (TextPart("hi"),), extra={"a": b"1"}), "api", b"{}")

    now = change(read)

    assert (now.role, now.content, now.extra, now.raw) == ("tool", read.content, read.extra, None)
    assert read.raw == Raw("api", b"{}")


@pytest.mark.parametrize("node", [OpaquePart("x", Raw("api", b"{}")), BuiltinTool("x", Raw("api", b"{}"))])
@pytest.mark.parametrize("change", [attrs.evolve, changed])
def test_bytes_that_are_what_a_node_says_are_not_forgotten(node: Any, change: Any) -> None:
    assert change(node, kind="y").raw == Raw("api", b"{}")


def test_nodes_are_equal_by_what_they_say_and_not_by_what_they_were_read_from() -> None:
    assert remember(Message("user", (TextPart("hi"),), extra={"a": b"1"}), "api", b"{}") == SAID
    assert attrs.evolve(SAID, role="system") != SAID
    assert ToolChoice("auto") == ToolChoice("auto")
    assert SAID.content != (chat.RefusalPart("hi"),)


def test_nodes_of_plain_values_hash_by_them() -> None:
    assert hash(ReasoningConfig("low")) == hash(ReasoningConfig("low"))
    with pytest.raises(TypeError):
        hash(SAID)


def test_repr_shows_what_is_said_and_neither_bytes_nor_unknown_members() -> None:
    shown = repr(remember(Message("user", (TextPart("hi"),), extra={"a": b"1"}), "api", b"{}"))

    assert shown.startswith("Message(role='user', content=(TextPart(text='hi', ")
    assert "raw" not in shown
    assert "extra" not in shown


@pytest.mark.parametrize("name", ["role", "raw", "anything"])
def test_nobody_writes_to_a_node(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(SAID, name, None)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_node_can_be_copied(copied: Any) -> None:
    assert copied(SAID) == SAID


def test_each_node_has_unknown_members_of_its_own() -> None:
    assert TextPart("a").extra is not TextPart("a").extra


def test_patterns_match_nodes_by_place() -> None:
    match SAID:
        case Message("user", (TextPart(text),)):
            assert text == "hi"
        case _:
            pytest.fail("not matched")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: MESSAGE("user"),
        lambda: MESSAGE("user", (), unknown=1),
        lambda: MESSAGE("user", (), None, False, None, {}),
        lambda: changed(SAID, unknown=1),
        lambda: attrs.evolve(cast("Any", SAID), unknown=1),
    ],
)
def test_a_field_that_is_missing_or_not_there_is_an_error(wrong: Any) -> None:
    with pytest.raises(TypeError):
        wrong()


@node
class Numbered(Raw):
    number: int = 0


def test_a_node_may_add_fields_to_another() -> None:
    numbered = Numbered("api", b"{}", 3)

    assert isinstance(numbered, Raw)
    assert (numbered, hash(numbered)) == (Numbered("api", b"{}", 3), hash(Numbered("api", b"{}", 3)))
    assert numbered != Numbered("api", b"{}")
    assert numbered != Raw("api", b"{}")
    assert attrs.evolve(numbered, text=b"[]") == changed(numbered, text=b"[]") == Numbered("api", b"[]", 3)
    assert repr(numbered) == "Numbered(api='api', text=b'{}', number=3)"


def test_other_attrs_classes_can_be_changed_too() -> None:
    @attrs.frozen
    class Other:
        a: int
        b: int = attrs.field(init=False, default=7)

    assert changed(Other(1), a=2) == Other(2)


@record
class Fact:
    name: str
    count: int = 0
    _told: bool = attrs.field(init=False, default=False)


@record(eq=False, kw_only=True, repr=False)
class Case:
    title: str
    _text: str | None = None
    notes: list[str] = attrs.field(factory=list)
    began: int = attrs.field(init=False)

    def __post_init__(self) -> None:
        self.began = 7

    @property
    def text(self) -> str:
        return "none" if self._text is None else self._text


def test_a_record_is_an_attrs_class_that_can_be_changed() -> None:
    fact = Fact("a", 1)
    fact.count += 1
    fact._told = True

    assert [it.name for it in attrs.fields(Fact)] == ["name", "count", "_told"]
    assert (fact.name, fact.count) == ("a", 2)
    assert attrs.evolve(Fact("a", 1), count=3) == Fact("a", 3)
    assert Fact("a") == Fact("a") != Fact("b")
    assert repr(Fact("a")) == "Fact(name='a', count=0, _told=False)"
    assert copy.copy(fact) == fact
    with pytest.raises(TypeError):
        hash(fact)  # equal by what it holds, and that changes


def test_what_is_private_is_given_by_its_plain_name_which_may_be_a_property() -> None:
    case = Case(title="x", text="hello")

    assert (case.text, case._text, Case(title="y").text) == ("hello", "hello", "none")
    assert case.began == 7
    assert case.notes is not Case(title="x").notes
    with pytest.raises(AttributeError):
        case.text = "new"  # type: ignore[misc]
    with pytest.raises(TypeError):
        Case("x")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Case(text="x")  # type: ignore[call-arg]


def test_a_record_can_be_one_that_equals_only_itself_and_shows_nothing() -> None:
    """Those of a call hold keys and texts: they show none of them."""
    case = Case(title="secret")

    assert case != Case(title="secret")
    assert {case: 1}[case] == 1
    assert "secret" not in repr(case)
    assert "secret" not in f"{case}"


@pytest.mark.parametrize("kind", [Exchange, Request, UpstreamRequest, Whole])
def test_what_holds_keys_or_texts_of_a_call_shows_none(kind: Any) -> None:
    assert kind.__repr__ is object.__repr__


def test_an_attempt_that_is_part_of_a_cycle_is_collected() -> None:
    """It begins with strings and numbers alone, of which the collector knows nothing, and is given its error later."""

    class Held(ProxyError):
        attempt: Attempt

    def cycle() -> weakref.ref[Held]:
        attempt, error = Attempt("openai", "gpt", 1.0), Held("Sorry")
        attempt.error, error.attempt = error, attempt
        return weakref.ref(error)

    held = cycle()
    assert held() is not None
    gc.collect()
    assert held() is None


class Base:
    title: str = ""


class Derived(Base):
    text: str = ""


class Checked:
    count: int = attrs.field(default=0, validator=attrs.validators.ge(0))


@pytest.mark.parametrize("kind", [Derived, Checked])
@pytest.mark.parametrize("made", [record, node])
def test_what_could_not_be_kept_of_a_class_is_refused_when_it_is_made(kind: Any, made: Any) -> None:
    with pytest.raises(TypeError, match="no base class, no validators"):
        made(type(kind.__name__, kind.__bases__, dict(vars(kind))))
