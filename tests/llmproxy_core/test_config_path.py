"""Places as people read them, and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core.config_path import masked, read_place, value_at, written

keys = st.text(max_size=20).filter(lambda key: masked(key) == key)


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (("server", "port"), "server.port"),
        (("route", 0), "route[1]"),
        (("route", 0, "processors", 2), "route[1].processors[3]"),
        (("llm", "a.b", "model"), 'llm."a.b".model'),
        (("llm", "", "x"), 'llm."".x'),
        (("", "x"), '"".x'),
        (("llm", 'a"\\\n'), 'llm."a\\"\\\\\\u000a"'),
        (("llm", "\U000e0001"), 'llm."\\U000e0001"'),
        ((), ""),
    ],
)
def test_a_place_is_written_as_toml_does(place: tuple[str | int, ...], text: str) -> None:
    assert written(place) == text
    assert read_place(text) == place


@given(st.lists(keys | st.integers(0, 99)).map(tuple).filter(lambda place: not place or isinstance(place[0], str)))
def test_what_was_written_is_read_back(place: tuple[str | int, ...]) -> None:
    assert read_place(written(place)) == place
    assert written(place).isprintable()


def test_a_very_long_key_is_cut_short() -> None:
    assert len(written(("llm", "x" * 5000))) < 120


@pytest.mark.parametrize("key", ["sk-proj-4f9a8b7c6d5e", "AIzaSy4f9a8b7c6d5e", "gsk_4f9a8b7c6d5e0", "Bearer abc"])
def test_what_looks_like_a_credential_is_masked(key: str) -> None:
    assert key not in written(("llm", key))


@pytest.mark.parametrize("name", ["sk", "hf-inference", "gpt-4o-2024-08-06", "text-embedding-3-large"])
def test_a_name_is_not_taken_for_a_credential(name: str) -> None:
    assert masked(name) == name


def test_a_value_is_found_by_its_place() -> None:
    document = {"route": [{"processors": ["a"]}]}

    assert value_at(document, ("route", 0, "processors", 0)) == "a"


@pytest.mark.parametrize("place", [("x",), ("route", 1), ("route", "x"), (0,), ("route", 0, "a", "b")])
def test_a_place_that_is_not_there_is_a_lookup_error(place: tuple[str | int, ...]) -> None:
    with pytest.raises(LookupError):
        value_at({"route": [{"a": 1}]}, place)
