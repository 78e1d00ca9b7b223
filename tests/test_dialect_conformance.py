"""Every registered dialect conforms, with all its recordings; and the conformance tests find what is broken."""

from __future__ import annotations

import subprocess
import sys

import attrs
import hypothesis
import pytest
from hypothesis import Phase, strategies

from llmproxy_core.testing import DIALECT_CHECKS, DeclaredDialect, DialectCheck, NotConforming, Says, check_dialect
from llmproxy_core.testing.dialect.sameness import differences, of_reply, of_request
from llmproxy_core.testing.dialect.strategies import replies, requests
from llmproxy_openai import OpenAIDialect
from tests import broken_streams
from tests.broken_dialects import Counts
from tests.dialect_samples import PROTOCOLS, declared, registered
from tests.faults import FAULTS

BY_NAME = {check.__name__: check for check in DIALECT_CHECKS}
NO_SHRINKING = [Phase.explicit, Phase.reuse, Phase.generate]  # it takes minutes, and the events are told anyway


def test_every_registered_dialect_is_declared() -> None:
    assert {protocol.dialect for protocol in PROTOCOLS.values()} == set(registered())


@pytest.mark.parametrize("check", DIALECT_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_dialect_conforms(name: str, check: DialectCheck) -> None:
    check(declared(name))


@pytest.mark.parametrize("name", PROTOCOLS)
@hypothesis.settings(max_examples=30, deadline=None, phases=NO_SHRINKING)
@hypothesis.given(data=strategies.data())
def test_what_a_dialect_is_declared_to_say_it_says(name: str, data: strategies.DataObject) -> None:
    protocol = declared(name)
    dialect = protocol.dialect
    for api in protocol.chat_apis():
        chat = attrs.evolve(data.draw(requests(protocol)), stream=bool(api.streams))
        back = dialect.read_chat(api, dialect.write_chat(api, chat))
        elsewhere = ["model"] if "{model}" in api.path else []
        assert differences(of_request(back), of_request(chat), but=elsewhere) == []
    for api in protocol.chat_apis(stream=False):
        reply = data.draw(replies(protocol))
        assert differences(of_reply(dialect.read_reply(api, dialect.write_reply(api, reply))), of_reply(reply)) == []


# -- what is broken is found -----------------------------------------------------------------------------------------


def of_openai(dialect: OpenAIDialect) -> DeclaredDialect:
    """*dialect* as OpenAI's is declared, without its recordings: what is broken shows without them."""
    return attrs.evolve(declared("openai"), dialect=dialect, samples=(), errors=(), examples=4)


@pytest.mark.parametrize(("what", "check", "dialect"), FAULTS, ids=[f"{what} ({check})" for what, check, _ in FAULTS])
def test_a_fault_is_found_by_the_check_that_is_to_find_it(what: str, check: str, dialect: type[OpenAIDialect]) -> None:
    with pytest.raises(NotConforming) as found:
        BY_NAME[check](of_openai(dialect()))

    assert len(str(found.value)) > 40


@pytest.mark.parametrize("dialect", [OpenAIDialect, Counts])
def test_without_a_fault_nothing_is_found(dialect: type[OpenAIDialect]) -> None:
    check_dialect(of_openai(dialect()))


def test_every_check_finds_some_fault() -> None:
    assert any(dialect.__module__ == broken_streams.__name__ for _, _, dialect in FAULTS)
    assert {check for _, check, _ in FAULTS} == set(BY_NAME)


def test_all_that_is_wrong_is_told_at_once() -> None:
    class Broken(OpenAIDialect):
        request_headers = frozenset({"authorization"})
        response_headers = frozenset({"Set-Cookie"})

    with pytest.raises(NotConforming, match="fails 2 checks") as found:
        check_dialect(of_openai(Broken()))

    assert "keeps_keys_in_headers" in str(found.value)
    assert "lets_the_right_headers_cross" in str(found.value)


def test_a_word_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="telepathy"):
        DeclaredDialect(dialect=OpenAIDialect(), says={"telepathy"})


def test_a_word_brings_what_it_needs() -> None:
    assert DeclaredDialect(dialect=OpenAIDialect(), says={"named_tool"}).says == {Says.NAMED_TOOL, Says.TOOLS}


def test_the_tests_of_plugin_authors_need_no_hypothesis() -> None:
    hidden = (
        "import sys; sys.modules['hypothesis'] = None; from llmproxy_core.testing import DialectConformance; "
        "print(DialectConformance.__name__)"
    )
    ran = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, timeout=60, check=False)

    assert ran.stdout.strip() == "DialectConformance", ran.stderr
