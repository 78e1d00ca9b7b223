"""Header fields: in order, several of a name, and their values in no log."""

from llmproxy_core import Headers
from llmproxy_core.headers import HOP_BY_HOP

FIELDS = Headers([("accept", "a"), ("x-two", "1"), ("authorization", "Bearer sk-canary"), ("x-two", "2")])


def test_the_first_value_of_a_name_is_given() -> None:
    assert FIELDS.get("x-two") == "1"


def test_an_absent_name_gives_none_or_the_default() -> None:
    assert FIELDS.get("absent") is None
    assert FIELDS.get("absent", "default") == "default"


def test_all_values_of_a_name_are_given_in_order() -> None:
    assert FIELDS.get_all("x-two") == ["1", "2"]
    assert FIELDS.get_all("absent") == []


def test_several_names_are_picked_in_the_order_of_the_fields() -> None:
    assert FIELDS.pick(frozenset({"x-two", "accept", "absent"})) == [("accept", "a"), ("x-two", "1"), ("x-two", "2")]


def test_a_name_is_in_the_fields_or_not() -> None:
    assert "accept" in FIELDS
    assert "absent" not in FIELDS


def test_the_fields_are_iterated_in_order() -> None:
    assert [name for name, _ in FIELDS] == ["accept", "x-two", "authorization", "x-two"]
    assert len(FIELDS) == 4


def test_values_do_not_show_in_a_repr() -> None:
    assert "authorization" in repr(FIELDS)
    assert "sk-canary" not in repr(FIELDS)


def test_headers_keep_what_they_were_made_of() -> None:
    pairs = [("a", "1")]
    headers = Headers(pair for pair in pairs)
    pairs.clear()

    assert list(headers) == [("a", "1")]


def test_the_fields_of_one_connection_are_those_of_the_standard() -> None:
    """RFC 9110 section 7.6.1."""
    standard = {"connection", "proxy-connection", "keep-alive", "te", "transfer-encoding", "upgrade"}

    assert standard <= HOP_BY_HOP
    assert all(name == name.lower() for name in HOP_BY_HOP)
