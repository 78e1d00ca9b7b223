"""JSON text is changed in one place and keeps its bytes everywhere else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core.wire.splice import decode_array, decode_object, join_array, join_object, with_items, with_members
from tests.llmproxy_openai.json_strategies import arrays, objects, unknown, values


@given(st.data())
def test_an_element_is_replaced_and_nothing_else(data: st.DataObject) -> None:
    texts = data.draw(st.lists(values(), min_size=1, max_size=4))
    array = data.draw(st.composite(lambda draw: arrays(draw, texts))()).encode()
    index = data.draw(st.integers(0, len(texts) - 1))
    items = [bytes(raw) for raw in decode_array(array)]

    same = with_items(array, items)
    changed = with_items(array, [*items[:index], b"0.50", *items[index + 1 :]])

    assert same == array
    assert [bytes(raw) for raw in decode_array(changed)] == [*items[:index], b"0.50", *items[index + 1 :]]
    assert len(changed) - len(b"0.50") == len(array) - len(items[index])


def test_more_or_fewer_elements_are_joined_anew() -> None:
    assert with_items(b"[ 1 , 2 ]", [b"1"]) == b"[1]"
    assert with_items(b"[ ]", [b"1", b"2"]) == b"[1,2]"
    assert with_items(b"[ ]", []) == b"[ ]"


@given(st.data())
def test_members_are_set_added_and_removed_and_nothing_else(data: st.DataObject) -> None:
    members = data.draw(unknown())
    text = data.draw(st.composite(lambda draw: objects(draw, [("a", "1.0"), *members, ("b", "2.0")]))()).encode()

    changed = with_members(text, {"a": None, "b": b"3.0", "c": b"4.0"})

    was = {name: bytes(raw) for name, raw in decode_object(text).items()}
    del was["a"]
    assert {name: bytes(raw) for name, raw in decode_object(changed).items()} == was | {"b": b"3.0", "c": b"4.0"}
    assert with_members(text, {}) == text


def test_an_object_that_names_a_member_twice_is_written_anew() -> None:
    changed = with_members(b'{"a":1, "b":2, "a":3.0}', {"b": None, "c": b"4"})

    assert changed == b'{"a":3.0,"c":4}'


@pytest.mark.parametrize("name", ["a", 'q"uote', "é", "\n"])
def test_what_is_joined_is_json(name: str) -> None:
    assert json.loads(join_array([join_object({name: b"1.0"}), b"null"])) == [{name: 1.0}, None]
