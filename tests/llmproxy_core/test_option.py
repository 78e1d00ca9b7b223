"""What a key's declaration may say, and when a mistake in it is found."""

from typing import Any, Literal

import attrs
import pytest

from llmproxy_core.option import option, option_of, options, variable_type


@attrs.frozen(kw_only=True)
class Keys:
    """Keys of each type that a variable can hold."""

    on: bool = option("A switch.", env="ACME_ON")
    most: int | None = option("A count.", default=None, env="ACME_MOST")
    ttl_s: float = option("A time.", default=1.0, env="ACME_TTL")
    label: str | None = option("A text.", default=None, env="_acme9")
    llms: tuple[str, ...] = option("LLMs.", default=(), refers_to="llm")
    plain: str = option("Nothing special.", default="")


def test_a_key_carries_its_variable_and_what_it_refers_to() -> None:
    found = {field.name: (declared.env, declared.refers_to) for field, declared in options(Keys)}

    assert found == {
        "on": ("ACME_ON", None),
        "most": ("ACME_MOST", None),
        "ttl_s": ("ACME_TTL", None),
        "label": ("_acme9", None),
        "llms": (None, "llm"),
        "plain": (None, None),
    }


def test_a_variable_holds_what_its_key_does() -> None:
    held = {field.name: variable_type(field) for field, declared in options(Keys) if declared.env is not None}

    assert held == {"on": bool, "most": int, "ttl_s": float, "label": str}


def typed(kind: Any) -> type[Any]:
    """A class whose one key, of the type *kind*, has a variable."""
    namespace = {"__annotations__": {"listed": kind}, "listed": option("A key.", default=None, env="ACME")}
    return attrs.frozen(type("Config", (), namespace))


@pytest.mark.parametrize(
    "kind",
    [tuple[str, ...], dict[str, str], Literal["a", "b"], int | str, object, None],
    ids=["array", "table", "literal", "union", "anything", "none"],
)
def test_a_variable_of_another_type_is_a_mistake_that_names_the_key(kind: Any) -> None:
    with pytest.raises(TypeError, match=r"^listed: a key with env must be a bool, int, float or str$"):
        list(options(typed(kind)))


@pytest.mark.parametrize("name", ["", "9A", "A B", "A=B", "Ä", "A\n"])
def test_what_no_variable_can_be_called_is_refused_at_once(name: str) -> None:
    with pytest.raises(ValueError, match="is no name of an environment variable"):
        option("Wrong.", default="", env=name)


def test_a_field_made_otherwise_is_no_key() -> None:
    @attrs.frozen
    class Mixed:
        own: int = 3
        key: int = option("A key.", default=4)

    assert [field.name for field, _ in options(Mixed)] == ["key"]
    assert option_of(attrs.fields(Mixed).own) is None
