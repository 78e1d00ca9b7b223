"""A request: bytes first, meaning on demand, and never changed."""

import json

import attrs
import pytest

from llmproxy_core import Api, BadRequest, Headers, Operation, Request, RequestHead, Unsupported
from llmproxy_core.chat import ChatRequest, Message, TextPart
from llmproxy_core.request import client_view
from llmproxy_openai import OpenAIDialect
from tests.llmproxy_core.conversation import APIS, CHAT, COMPLETIONS, DIALECT, EMBEDDINGS, own_request, question
from tests.llmproxy_core.path_model_dialect import GENERATE, PathModelDialect

# Spaces and an unknown member that nobody but the client and the provider know.
BODY = b'{ "model" : "gpt-4o", "messages" : [ { "role":"user", "content":"hi" } ], "x_unknown" : [1,  2] }'
EMBED = b'{"model":"text-embedding-3-small","input":"hi"}'
OTHER = PathModelDialect()


def _chat(body: bytes = BODY) -> Request:
    return Request(operation=Operation.CHAT, dialect=DIALECT, api=CHAT, body=body, path="/v1/chat/completions")


def _path_model(body: bytes = b'{"messages":[{"role":"user","content":"hi"}]}') -> Request:
    return Request(operation=Operation.CHAT, dialect=OTHER, api=GENERATE, body=body, path_model="org/name")


class Counting(OpenAIDialect):
    """Counts how often a body is read."""

    def __init__(self) -> None:
        self.heads = 0
        self.chats = 0
        self.prepared = 0

    def read_head(self, api: Api, body: bytes) -> RequestHead:
        self.heads += 1
        return super().read_head(api, body)

    def read_chat(self, api: Api, body: bytes) -> ChatRequest:
        self.chats += 1
        return super().read_chat(api, body)

    def read_parameters(self, api: Api, body: bytes) -> ChatRequest:
        return super().read_parameters(api, body)

    def prepare(
        self, api: Api, body: bytes, *, model: str | None = None, stream: bool | None = None, ask_usage: bool = False
    ) -> bytes:
        self.prepared += 1
        return super().prepare(api, body, model=model, stream=stream, ask_usage=ask_usage)


# -- meaning ---------------------------------------------------------------------------------------------------------


def test_parameters_are_told_without_reading_the_conversation() -> None:
    dialect = Counting()
    body = b'{"model":"gpt-4o","messages":"no list","tools":7,"temperature":0.5,"stop":"END","stream":true}'
    asked = Request(operation=Operation.CHAT, dialect=dialect, api=CHAT, body=body)

    found = asked.parameters

    assert (found.temperature, found.stop, found.stream) == (0.5, ("END",), True)
    assert (found.messages, found.tools) == ((), ())
    assert dialect.chats == 0
    with pytest.raises(BadRequest, match="messages"):
        _ = asked.chat


def test_parameters_are_those_of_the_chat_where_that_is_known() -> None:
    own, read = Request.of_chat(ChatRequest("m", (), temperature=0.5)), _chat()

    assert own.parameters is own.chat
    assert read.chat is read.parameters


def test_what_the_path_says_is_in_parameters_too() -> None:
    api = attrs.evolve(GENERATE, streams=True)
    asked = Request(operation=Operation.CHAT, dialect=OTHER, api=api, body=BODY, path_model="org/name")

    found = asked.parameters

    assert (found.model, found.stream, found.wants_usage) == ("org/name", True, True)
    assert (asked.chat.model, asked.chat.stream, asked.chat.wants_usage) == ("org/name", True, True)


class Halving(OpenAIDialect):
    """Reads a chat in its own way, and says nothing of parameters."""

    def read_chat(self, api: Api, body: bytes) -> ChatRequest:
        chat = super().read_chat(api, body)
        return attrs.evolve(chat, temperature=(chat.temperature or 0.0) / 2)


class Further(Halving):
    pass


@pytest.mark.parametrize("dialect", [Halving(), Further()])
def test_who_reads_chats_in_its_own_way_reads_parameters_so_too(dialect: OpenAIDialect) -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"temperature":1}'
    asked = Request(operation=Operation.CHAT, dialect=dialect, api=CHAT, body=body)

    assert asked.parameters.temperature == 0.5


@pytest.mark.parametrize(
    "body", [b"", b"[1]", b"{", b'{"model":"\xff"}', b'{"model":"m","temperature":"hot"}', b'{"a":' + b"[" * 9999]
)
def test_parameters_of_what_is_no_request_are_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        _ = _chat(body).parameters


def test_the_head_has_the_model_and_how_the_answer_is_wanted() -> None:
    head = _chat(question(stream=True, usage=True)).head

    assert (head.model, head.stream, head.wants_usage) == ("gpt-4o-mini", True, True)
    assert _chat().model == "gpt-4o"
    assert _chat().head.stream is False


def test_nothing_is_read_before_it_is_asked_for_and_nothing_twice() -> None:
    counting = Counting()
    request = Request(operation=Operation.CHAT, dialect=counting, api=CHAT, body=BODY)
    unread = (counting.heads, counting.chats)

    for _ in range(3):
        assert request.model == "gpt-4o"
    after_heads = (counting.heads, counting.chats)
    for _ in range(3):
        assert request.chat.model == "gpt-4o"

    assert unread == (0, 0)
    assert after_heads == (1, 0)
    assert (counting.heads, counting.chats) == (1, 1)


def test_the_top_level_members_are_json_text() -> None:
    request = _chat()

    assert {name: bytes(raw) for name, raw in request.json.items()}["x_unknown"] == b"[1,  2]"
    assert request.json is request.json


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"null", b'{"a":1,"a":2}', b"\xff"])
def test_what_is_no_json_object_is_refused_at_every_level(body: bytes) -> None:
    for read in ("head", "json", "chat"):
        with pytest.raises(BadRequest):
            getattr(_chat(body), read)


def test_the_conversation_is_neutral() -> None:
    assert _chat().chat.messages == (Message("user", (TextPart("hi"),)),)


@pytest.mark.parametrize(
    "request_",
    [
        Request(operation=Operation.EMBEDDINGS, dialect=DIALECT, api=EMBEDDINGS, body=EMBED),
        Request(operation=Operation.MODELS, dialect=DIALECT, api=APIS["openai.models"], method="GET"),
        Request(operation=Operation.OPAQUE, dialect=DIALECT),
        Request(operation=Operation.CHAT),
    ],
    ids=["embeddings", "models", "opaque", "without a dialect"],
)
def test_what_is_no_conversation_has_no_chat(request_: Request) -> None:
    with pytest.raises(BadRequest, match="no conversation"):
        _ = request_.chat


def test_a_request_without_a_body_has_the_model_of_its_path() -> None:
    request = Request(operation=Operation.MODELS, dialect=DIALECT, api=APIS["openai.model"], path_model="org/name")

    assert (request.model, request.head.stream, request.body) == ("org/name", False, b"")


def test_an_opaque_request_is_not_looked_into() -> None:
    request = Request(operation=Operation.OPAQUE, dialect=DIALECT, body=b"\x00 no JSON")

    assert request.model is None
    assert request.body == b"\x00 no JSON"


def test_the_model_in_the_path_counts_whatever_was_read_first() -> None:
    """A dialect may name the model in the path: its body then has none."""
    by_head, by_chat = _path_model(), _path_model()

    assert by_head.model == "org/name"
    assert by_chat.chat.messages
    assert by_chat.model == "org/name"


def test_headers_are_empty_unless_given() -> None:
    assert len(_chat().headers) == 0
    assert Request(operation=Operation.CHAT, headers=Headers([("a", "1")])).headers.get("a") == "1"


# -- of our own making -----------------------------------------------------------------------------------------------


def test_a_request_of_a_processor_has_no_wire_form_of_its_own() -> None:
    request = own_request("hi", stream=True)

    assert request.body == b""
    assert (request.model, request.head.stream) == ("gpt-4o-mini", True)
    assert request.chat.messages[0].text == "hi"


def test_it_is_rendered_in_the_wire_form_of_the_llm() -> None:
    body = own_request("hi").render(DIALECT, CHAT, model="sent", stream=None, ask_usage=False)

    assert json.loads(body) == {"model": "sent", "messages": [{"role": "user", "content": "hi"}]}


# -- change ----------------------------------------------------------------------------------------------------------


def test_another_conversation_is_another_request_and_what_it_left_stays_byte_equal() -> None:
    request = _chat()
    chat = attrs.evolve(request.chat, temperature=0.5)

    changed = request.with_chat(chat)

    assert request.body == BODY
    assert changed.chat is chat
    assert b'"messages" : [ { "role":"user", "content":"hi" } ]' in changed.body
    assert b'"x_unknown" : [1,  2]' in changed.body
    assert json.loads(changed.body)["temperature"] == 0.5
    assert changed.path == request.path


def test_the_same_conversation_gives_the_bytes_received() -> None:
    request = _chat()

    assert request.with_chat(request.chat).body == BODY


def test_another_model_changes_nothing_else() -> None:
    changed = _chat().with_model("gpt-5")

    assert changed.body == BODY.replace(b"gpt-4o", b"gpt-5")
    assert changed.model == "gpt-5"


def test_another_model_for_a_changed_conversation_keeps_both_changes() -> None:
    request = _chat()

    changed = request.with_chat(attrs.evolve(request.chat, temperature=0.5)).with_model("gpt-5")

    assert json.loads(changed.body)["temperature"] == 0.5
    assert json.loads(changed.body)["model"] == "gpt-5"
    assert changed.chat.model == changed.model == "gpt-5"


def test_another_model_for_a_request_of_our_own() -> None:
    assert own_request().with_model("gpt-5").model == "gpt-5"


@pytest.mark.parametrize("operation", [Operation.OPAQUE, Operation.MODELS])
def test_a_request_that_names_no_model_cannot_name_another(operation: Operation) -> None:
    with pytest.raises(BadRequest, match="names no model"):
        Request(operation=operation, dialect=DIALECT).with_model("gpt-5")


def test_another_body_is_read_anew() -> None:
    request = _chat()
    assert request.chat.model == "gpt-4o"

    changed = request.with_body(question(model="other"))

    assert changed.chat.model == changed.model == "other"
    assert request.model == "gpt-4o"


def test_a_model_in_the_path_survives_changes_of_the_body() -> None:
    request = _path_model()

    assert request.with_body(b'{"messages":[]}').model == "org/name"
    assert request.with_chat(attrs.evolve(request.chat, temperature=0.5)).model == "org/name"


def test_a_model_in_the_path_can_be_changed() -> None:
    request = _path_model()

    assert request.with_model("other").model == "other"
    assert request.with_model("other").path_model == "other"
    assert request.with_chat(attrs.evolve(request.chat, model="chosen")).model == "chosen"


def test_what_has_no_model_in_its_path_gets_none_there() -> None:
    assert _chat().with_model("gpt-5").path_model is None


# -- for the upstream ------------------------------------------------------------------------------------------------


def test_a_request_nobody_changed_goes_upstream_as_the_bytes_received() -> None:
    assert _chat().render(DIALECT, CHAT, model=None, stream=None, ask_usage=False) is BODY


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": "gpt-5"}, BODY.replace(b"gpt-4o", b"gpt-5")),
        ({"stream": True}, BODY[:-2] + b',"stream":true }'),
    ],
)
def test_one_member_is_spliced_in(changes: dict[str, object], expected: bytes) -> None:
    form: dict[str, object] = {"model": None, "stream": None, "ask_usage": False, **changes}

    assert _chat().render(DIALECT, CHAT, **form) == expected  # type: ignore[arg-type]


def test_usage_is_asked_for_where_the_client_did_not() -> None:
    body = _chat(question(stream=True)).render(DIALECT, CHAT, model=None, stream=None, ask_usage=True)

    assert json.loads(body)["stream_options"] == {"include_usage": True}


def test_the_same_form_is_rendered_once() -> None:
    counting = Counting()
    request = Request(operation=Operation.CHAT, dialect=counting, api=CHAT, body=BODY)

    first = request.render(counting, CHAT, model="a", stream=None, ask_usage=False)
    again = request.render(counting, CHAT, model="a", stream=None, ask_usage=False)
    other = request.render(counting, CHAT, model="b", stream=None, ask_usage=False)

    assert first is again
    assert other != first
    assert counting.prepared == 2


def test_another_wire_form_is_rendered_from_the_meaning() -> None:
    body = own_request().render(OTHER, GENERATE, model=None, stream=None, ask_usage=False)
    from_chat = _chat(question()).render(OTHER, GENERATE, model=None, stream=None, ask_usage=False)

    assert json.loads(body) == json.loads(from_chat)


def test_a_member_that_another_protocol_cannot_say_is_named() -> None:
    with pytest.raises(Unsupported) as refused:
        _chat().render(OTHER, GENERATE, model=None, stream=None, ask_usage=False)

    assert refused.value.param == "x_unknown"


# -- what the client expects -----------------------------------------------------------------------------------------


def test_a_chat_clients_view_comes_from_its_request() -> None:
    view = client_view(_chat(question(stream=True, usage=True)))

    assert (view.dialect, view.api, view.stream, view.wants_usage) == (DIALECT, CHAT, True, True)


def test_a_legacy_completion_is_a_conversation() -> None:
    request = Request(
        operation=Operation.CHAT, dialect=DIALECT, api=COMPLETIONS, body=b'{"model":"m","prompt":"hi","stream":true}'
    )

    assert client_view(request).stream
    assert request.chat.messages[0].text == "hi"


@pytest.mark.parametrize(
    "request_",
    [
        Request(operation=Operation.EMBEDDINGS, dialect=DIALECT, api=EMBEDDINGS, body=b"never read here"),
        Request(operation=Operation.OPAQUE, dialect=DIALECT, body=b"never read here"),
    ],
)
def test_other_clients_expect_a_plain_answer_and_their_body_is_not_read_for_that(request_: Request) -> None:
    view = client_view(request_)

    assert (view.api, view.stream, view.wants_usage) == (request_.api, False, False)


def test_a_body_that_is_no_json_is_refused_before_there_is_an_exchange() -> None:
    with pytest.raises(BadRequest):
        client_view(_chat(b"{"))


@pytest.mark.parametrize("length", [256, 257])
def test_a_model_with_a_name_that_no_model_has_is_a_mistake_of_the_callers(length: int) -> None:
    body = b'{"model":"%b","messages":[]}' % (b"m" * length)
    request = Request(operation=Operation.CHAT, dialect=DIALECT, api=CHAT, body=body)

    if length <= 256:
        assert request.model == "m" * length
        return
    for _ in range(2):
        with pytest.raises(BadRequest, match="longer than 256"):
            _ = request.model
