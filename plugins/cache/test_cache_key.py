"""What makes two requests the same, and what does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmproxy_cache.key import NotCacheable, canonical, key_of

from llmproxy_core import Api, Caller, Dialect, Exchange, Headers, Request, RouteView, Tasks
from llmproxy_core.chat import TextPart
from llmproxy_core.layer import Layer, running
from llmproxy_core.testing import FakeClock, ScriptedLLM
from llmproxy_openai import OpenAIDialect
from tests.llmproxy_core.conversation import CHAT, COMPLETIONS, DIALECT, EMBEDDINGS

BODY = (
    b'{"model":"m","messages":[{"role":"user","content":"h\\u00e9llo"}],"temperature":0.5,"seed":7,'
    b'"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":'
    b'{"a":{"type":"string"},"b":{"type":"number"}}}}}],"own":{"x":[1,2.50,null]}}'
)

ANN = Caller("ann", "acme")
FIRST = Layer("cache", 1)


@attrs.frozen
class Asked:
    """All that a key may depend on."""

    body: bytes = BODY
    api: Api = CHAT
    headers: tuple[tuple[str, str], ...] = ()
    query: str = ""
    path_model: str | None = None
    caller: Caller = ANN
    fingerprint: str = "a route"
    share: str = "caller"
    dialect: Dialect = DIALECT
    layer: Layer = FIRST

    def key(self) -> str:
        tasks = Tasks()
        llm = ScriptedLLM([], dialect=DIALECT, api=self.api, tasks=tasks)
        request = Request(
            operation=self.api.operation,
            dialect=self.dialect,
            api=self.api,
            headers=Headers(self.headers),
            query=self.query,
            body=self.body,
            path_model=self.path_model,
        )
        exchange = Exchange(request, id="1", route="/v1", tasks=tasks, clock=FakeClock(), caller=self.caller)
        token = running.set(self.layer)
        try:
            return key_of(exchange, RouteView("/v1", llm, "m", self.fingerprint), self.share)  # type: ignore[arg-type]
        finally:
            running.reset(token)


def edited(edit: Callable[[dict[str, Any]], object]) -> bytes:
    body = json.loads(BODY)
    edit(body)
    return json.dumps(body).encode()


def reordered(value: object) -> object:
    """*value* with the members of all objects the other way round, but those of a schema's `properties`."""
    if isinstance(value, dict):
        return {
            name: {each: reordered(it) for each, it in value[name].items()}
            if name == "properties"
            else reordered(value[name])
            for name in reversed(value)
        }
    return [reordered(it) for it in value] if isinstance(value, list) else value


def swap_properties(body: dict[str, Any]) -> None:
    parameters = body["tools"][0]["function"]["parameters"]
    parameters["properties"] = dict(reversed(parameters["properties"].items()))


SAME: dict[str, Asked] = {
    "white space": Asked(json.dumps(json.loads(BODY), indent=3).encode() + b"\n"),
    "order of members": Asked(json.dumps(reordered(json.loads(BODY))).encode()),
    "escapes": Asked(BODY.replace(b"h\\u00e9llo", "h\u00e9llo".encode()).replace(b"model", b"\\u006dodel")),
    "spelling of a number": Asked(BODY.replace(b"0.5", b"5.0e-1").replace(b"2.50", b"25E-1")),
    "stream": Asked(edited(lambda body: body.update(stream=True))),
    "stream off": Asked(edited(lambda body: body.update(stream=False))),
    "stream options": Asked(edited(lambda body: body.update(stream=True, stream_options={"include_usage": True}))),
    "request id": Asked(headers=(("x-client-request-id", "1"),)),
    "idempotency key": Asked(headers=(("idempotency-key", "1"),)),
    "credentials": Asked(headers=(("authorization", "Bearer sk-1"), ("x-api-key", "sk-1"))),
    "trace": Asked(headers=(("traceparent", "00-1"),)),
    "cache control": Asked(headers=(("cache-control", "no-cache"),)),
}

OTHER: dict[str, Asked] = {
    "caller": Asked(caller=Caller("bob", "acme")),
    "tenant": Asked(caller=Caller("ann", "umbrella")),
    "caller and tenant swapped": Asked(caller=Caller("acme", "ann")),
    "shared by tenant": Asked(share="tenant"),
    "route": Asked(fingerprint="another"),
    "place in the chain": Asked(layer=Layer("cache", 2)),
    "another cache": Asked(layer=Layer("second", 1)),
    "client's protocol": Asked(api=COMPLETIONS),
    "operation": Asked(api=EMBEDDINGS),
    "model in the path": Asked(path_model="m"),
    "query": Asked(query="api-version=1"),
    "beta": Asked(headers=(("openai-beta", "assistants=v2"),)),
    "model": Asked(edited(lambda body: body.update(model="n"))),
    "text": Asked(edited(lambda body: body["messages"][0].update(content="hello"))),
    "temperature": Asked(edited(lambda body: body.update(temperature=0.6))),
    "temperature unsaid": Asked(edited(lambda body: body.pop("temperature"))),
    "seed": Asked(edited(lambda body: body.update(seed=8))),
    "n": Asked(edited(lambda body: body.update(n=2))),
    "null is not absent": Asked(edited(lambda body: body.update(seed=None))),
    "an integer is no float": Asked(edited(lambda body: body.update(seed=7.0))),
    "text is no number": Asked(edited(lambda body: body.update(seed="7"))),
    "true is not 1": Asked(edited(lambda body: body["own"].update(x=[True, 2.5, None]))),
    "order of a list": Asked(edited(lambda body: body["own"].update(x=[2.5, 1, None]))),
    "order of a schema's properties": Asked(edited(swap_properties)),
    "an unknown member": Asked(edited(lambda body: body.update(other=1))),
    "stream deeper inside": Asked(edited(lambda body: body["own"].update(stream=True))),
    "case of a name": Asked(edited(lambda body: body.update(Seed=body.pop("seed")))),
    "composed and decomposed letters": Asked(edited(lambda body: body["messages"][0].update(content="he\u0301llo"))),
}


@pytest.mark.parametrize("asked", SAME.values(), ids=SAME.keys())
def test_what_does_not_change_the_answer_does_not_change_the_key(asked: Asked) -> None:
    assert asked.key() == Asked().key()


@pytest.mark.parametrize("asked", OTHER.values(), ids=OTHER.keys())
def test_what_may_change_the_answer_changes_the_key(asked: Asked) -> None:
    assert asked.key() != Asked().key()


def test_no_two_of_the_differences_are_taken_for_each_other() -> None:
    keys = [asked.key() for asked in OTHER.values()]

    assert len(set(keys)) == len(keys)


def test_a_tenant_shares_what_its_callers_asked() -> None:
    ann, bob = Asked(share="tenant"), Asked(share="tenant", caller=Caller("bob", "acme"))

    assert ann.key() == bob.key()
    assert attrs.evolve(bob, caller=Caller("bob", "umbrella")).key() != ann.key()


def test_of_a_header_that_comes_twice_the_order_counts() -> None:
    one, two = ("openai-beta", "a"), ("openai-beta", "b")

    assert Asked(headers=(one, two)).key() != Asked(headers=(two, one)).key()
    assert Asked(headers=(one, ("x-other", "1"), two)).key() == Asked(headers=(one, two)).key()


def test_properties_are_told_from_a_list_of_their_pairs() -> None:
    assert canonical(b'{"properties":{"a":1}}') != canonical(b'{"properties":[["a",1]]}')
    assert canonical(b'{"properties":{}}') != canonical(b'{"properties":[]}')
    with pytest.raises(msgspec.DecodeError):  # so that no body can be written that comes to the same
        msgspec.json.decode(canonical(b'{"properties":{"a":1}}'))


NOT_CACHEABLE = {
    "a member twice": b'{"model":"m","model":"n"}',
    "a member twice deep inside": b'{"messages":[{"role":"user","content":{"text":"a","text":"b"}}]}',
    "a member twice in two spellings": b'{"model":"m","mode\\u006c":"n"}',
    "a member twice, equal": b'{"model":"m","model":"m"}',
    "a member twice below properties": b'{"properties":{"a":{"b":1,"b":2}}}',
    "not finite": b'{"temperature":NaN}',
    "infinite": b'{"temperature":-Infinity}',
    "too large for a double": b'{"temperature":1e999}',
    "half a surrogate pair": b'{"user":"\\ud800"}',
    "a number of too many digits": b'{"seed":' + b"1" * 5000 + b"}",
    "no object": b"[]",
    "no JSON": b"{",
    "nothing": b"",
    "no UTF-8": b'{"a":"\xff"}',
    "too deep": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("body", NOT_CACHEABLE.values(), ids=NOT_CACHEABLE.keys())
def test_what_nobody_can_be_sure_of_has_no_key(body: bytes) -> None:
    with pytest.raises(NotCacheable):
        canonical(body)


class Cautious(OpenAIDialect):
    """Does not know which of its headers change an answer."""

    influencing_headers: frozenset[str] | None = None  # type: ignore[assignment]


def test_where_nobody_knows_which_headers_matter_all_that_are_sent_on_do() -> None:
    sent, kept_back = (("x-client-request-id", "1"),), (("x-other", "1"),)

    assert Asked(headers=sent, dialect=Cautious()).key() != Asked().key()
    assert Asked(headers=kept_back, dialect=Cautious()).key() == Asked().key()


def test_a_header_that_is_no_text_has_no_key() -> None:
    with pytest.raises(NotCacheable):
        Asked(headers=(("openai-beta", "\udcff"),)).key()


def test_a_request_that_is_nobodys_wire_form_has_no_key() -> None:
    tasks = Tasks()
    llm = ScriptedLLM([], dialect=DIALECT, api=CHAT, tasks=tasks)
    exchange = Exchange(Request(operation=CHAT.operation), id="1", route="/v1", tasks=tasks, clock=FakeClock())

    with pytest.raises(NotCacheable):
        key_of(exchange, RouteView("/v1", llm, "m"), "caller")


def test_what_a_processor_made_of_the_conversation_counts() -> None:
    """The request as it is when it comes to the cache, not as it was received."""
    request = Request(operation=CHAT.operation, dialect=DIALECT, api=CHAT, body=BODY)
    chat = request.chat
    (message,) = chat.messages
    same, other = (
        request.with_chat(attrs.evolve(chat, messages=(attrs.evolve(message, content=(TextPart(text),)),)))
        for text in ("h\u00e9llo", "hello")
    )

    assert canonical(same.body) == canonical(BODY)
    assert canonical(other.body) != canonical(BODY)


# Numbers that JSON readers agree on; keys without the one whose order counts.
texts = st.text(max_size=5).filter(lambda text: text != "properties")
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)
bodies = st.dictionaries(texts, values, max_size=4)


def spelled(value: object) -> object:
    """*value* such that equal spellings mean equal values: Python takes 1, 1.0 and True for equal."""
    if isinstance(value, dict):
        return {"o": sorted((name, repr(spelled(it))) for name, it in value.items())}
    return [spelled(it) for it in value] if isinstance(value, list) else (type(value).__name__, repr(value))


@given(bodies, bodies)
def test_two_bodies_have_one_canonical_form_if_and_only_if_they_say_the_same(
    one: dict[str, object], two: dict[str, object]
) -> None:
    mine, other = canonical(json.dumps(one).encode()), canonical(json.dumps(two, ensure_ascii=False).encode())

    said = [{name: it for name, it in body.items() if name not in ("stream", "stream_options")} for body in (one, two)]
    assert (mine == other) == (spelled(said[0]) == spelled(said[1]))
    assert canonical(json.dumps(reordered(one), indent=1).encode()) == mine
