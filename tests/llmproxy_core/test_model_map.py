"""Which models an LLM serves, and under which name each is sent."""

import pytest

from llmproxy_core import ModelMap

MAP = ModelMap(
    (
        ("gpt-*", "everything-gpt"),
        ("gpt-4o", "gpt-4o-2024-08-06"),
        ("local-?", None),
        ("o[13]-mini", None),
        ("plain", None),
        ("*-tiny", "tiny"),
    )
)


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06"),  # the exact name counts before the glob written above it
        ("gpt-4o-mini", "everything-gpt"),
        ("gpt-tiny", "everything-gpt"),  # two globs fit: the first written
        ("phi-tiny", "tiny"),
        ("local-7", "local-7"),  # None: what was asked
        ("o3-mini", "o3-mini"),
        ("plain", "plain"),
        ("Plain", None),  # names are case-sensitive
        ("local-77", None),
        ("o2-mini", None),
        ("claude", None),
        ("", None),
    ],
)
def test_a_name_is_sent_as_the_map_says(asked: str, sent: str | None) -> None:
    assert MAP.sent(asked) == sent


def test_without_entries_every_model_is_served_as_asked() -> None:
    everything = ModelMap()

    assert everything.sent("anything") == "anything"
    assert not everything.exactly("anything")
    assert not everything.listed
    assert everything.names == []


@pytest.mark.parametrize("asked", ["gpt-4o", "gpt-9", "plain"])
def test_an_override_is_sent_whatever_served_name_is_asked(asked: str) -> None:
    assert ModelMap(MAP.entries, "other").sent(asked) == "other"


def test_an_override_does_not_widen_what_is_served() -> None:
    assert ModelMap(MAP.entries, "other").sent("claude") is None
    assert ModelMap((), "other").sent("claude") == "other"


@pytest.mark.parametrize(("asked", "exactly"), [("gpt-4o", True), ("plain", True), ("gpt-9", False), ("claude", False)])
def test_a_name_written_out_is_told_from_a_glob(asked: str, exactly: bool) -> None:
    assert MAP.exactly(asked) is exactly


def test_the_model_list_has_the_names_written_out_in_order() -> None:
    assert MAP.names == ["gpt-4o", "plain"]
    assert MAP.listed


def test_asking_twice_gives_the_same() -> None:
    assert [MAP.sent("gpt-4o"), MAP.sent("gpt-4o")] == ["gpt-4o-2024-08-06"] * 2
    assert [MAP.sent("claude"), MAP.sent("claude")] == [None, None]


def test_the_memory_of_callers_names_is_bounded() -> None:
    served = ModelMap((("m*", None),))

    for number in range(5000):
        assert served.sent(f"m{number}") == f"m{number}"

    assert len(served._memory) <= 1024
    assert served.sent("m0") == "m0"


def test_maps_of_equal_entries_are_equal_whatever_they_were_asked() -> None:
    one, other = ModelMap((("a", None),)), ModelMap((("a", None),))
    one.sent("b")

    assert one == other
    assert "b'" not in repr(one)
