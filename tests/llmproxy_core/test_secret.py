"""A secret shows itself to nobody who does not ask by name."""

import copy
import json
import logging
import pickle
import string
from collections.abc import Callable

import attrs
import pytest

from llmproxy_core import Secret

VALUE = "sk-canary-0123456789"


@pytest.mark.parametrize(
    "show",
    [
        str,
        repr,
        ascii,
        lambda secret: f"{secret}",
        lambda secret: f"{secret!r:>40}",
        lambda secret: f"{secret:>40}",
        lambda secret: "%s %r" % (secret, secret),  # noqa: UP031 - as old code formats
        lambda secret: string.Template("$it").substitute(it=secret),
        lambda secret: str([secret]),
        lambda secret: str({"key": secret}),
    ],
)
def test_a_secret_cannot_be_formatted(show: Callable[[Secret], str]) -> None:
    shown = show(Secret(VALUE))

    assert VALUE not in shown
    assert "***" in shown


def test_a_secret_in_a_configuration_object_does_not_show() -> None:
    @attrs.frozen
    class Table:
        token: Secret

    assert VALUE not in repr(Table(Secret(VALUE)))


def test_a_secret_cannot_be_logged(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("test").warning("the key is %s", Secret(VALUE))

    assert "the key is ***" in caplog.text
    assert VALUE not in caplog.text


@pytest.mark.parametrize("spread", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps])
def test_a_secret_cannot_be_pickled_copied_or_dumped(spread: Callable[[object], object]) -> None:
    with pytest.raises(TypeError):
        spread(Secret(VALUE))


def test_a_secret_has_no_dictionary_to_be_read_from() -> None:
    assert not hasattr(Secret(VALUE), "__dict__")


def test_its_value_is_revealed_by_name() -> None:
    assert Secret(VALUE).reveal() == VALUE


def test_equal_secrets_are_equal_keys() -> None:
    """Resources are shared by equal configuration, secrets included."""
    assert Secret(VALUE) == Secret(VALUE)
    assert len({Secret(VALUE), Secret(VALUE), Secret("other")}) == 2


def test_a_secret_is_not_equal_to_its_value() -> None:
    secret: object = Secret(VALUE)

    assert secret != VALUE
    assert Secret(VALUE) != Secret("other")


def test_secrets_of_any_script_compare() -> None:
    assert Secret("schlüssel-🔑") == Secret("schlüssel-🔑")
    assert Secret("schlüssel-🔑") != Secret("schlüssel")


def test_an_empty_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        Secret("")


def test_every_occurrence_is_cut_out_of_what_somebody_quotes() -> None:
    quoted = b"bad key " + VALUE.encode() + b", really: '" + VALUE.encode() + b"'"

    assert Secret(VALUE).redact(quoted) == b"bad key ***, really: '***'"


def test_a_slash_that_json_escapes_hides_nothing() -> None:
    assert Secret("ab/cd").redact(rb'{"message":"bad key ab\/cd or ab/cd"}') == b'{"message":"bad key *** or ***"}'
