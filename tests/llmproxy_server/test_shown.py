"""What is made once a call holds keys and texts, and shows none of them, whoever prints it."""

from typing import Any

import pytest

from llmproxy_server.admission import Ticket
from llmproxy_server.answer import Answer
from llmproxy_server.call import Call
from llmproxy_server.door_request import Incoming
from llmproxy_server.log_line import Entry


@pytest.mark.parametrize("kind", [Answer, Call, Entry, Incoming, Ticket])
def test_what_holds_keys_or_texts_of_a_call_shows_none(kind: Any) -> None:
    assert kind.__repr__ is object.__repr__
