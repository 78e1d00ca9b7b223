"""What a fake provider says, in each protocol."""

import pytest

from llmproxy_core.dialect import Dialect, Operation
from llmproxy_core.plugins import Registry
from llmproxy_server.rehearsal.client import is_whole
from llmproxy_server.rehearsal.questions import Question
from llmproxy_server.rehearsal.script import Fault
from llmproxy_server.rehearsal.spoken import answer, error_of, refused

DIALECTS = Registry.load().dialects
MODEL = "a-model"


def asked(dialect: Dialect, *, stream: bool) -> Question:
    api = dialect.api_for(Operation.CHAT, stream=stream)
    assert api is not None
    path = dialect.roots[0] + api.path.replace("{model}", MODEL) + (f"?{api.query}" if api.query else "")
    return Question("/", dialect, api, path, MODEL, stream)


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "plain"])
@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_an_answer_is_one_for_clients_of_its_protocol(name: str, stream: bool) -> None:
    question = asked(DIALECTS[name], stream=stream)

    spoken = answer([DIALECTS[name]], "POST", question.path, question.body(1))

    assert (spoken.status, spoken.is_stream, spoken.is_call) == (200, stream, True)
    assert is_whole(b"".join(spoken.pieces), question)
    assert not is_whole(b"".join(spoken.pieces)[:-40], question)


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_an_error_is_read_as_what_it_is(name: str) -> None:
    question = asked(DIALECTS[name], stream=False)

    spoken = refused([DIALECTS[name]], "POST", question.path, error_of(Fault.LIMITS))

    assert (spoken.status, spoken.is_call) == (429, True)


def test_a_path_that_nobody_knows_is_no_model_call() -> None:
    spoken = answer(DIALECTS.values(), "POST", "/v1/nothing", b"{}")

    assert (spoken.status, spoken.is_call) == (404, False)
