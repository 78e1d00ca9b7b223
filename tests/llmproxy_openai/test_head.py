"""What pass-through needs of a request is read strictly, and changed without touching the rest."""

import json

import msgspec
import pytest
from hypothesis import given

from llmproxy_core.dialect import RequestHead
from llmproxy_core.errors import BadRequest
from llmproxy_openai import OpenAIDialect
from llmproxy_openai.paths import CHAT, EMBEDDINGS
from tests.llmproxy_openai.request_strategies import requests

OPENAI = OpenAIDialect()


@pytest.mark.parametrize(
    ("body", "head"),
    [
        pytest.param(b"{}", RequestHead(), id="nothing said"),
        pytest.param(b'{"model": "gpt-\\u0034"}', RequestHead("gpt-4"), id="model"),
        pytest.param(b'{"model": null, "stream": null, "stream_options": null}', RequestHead(), id="null is absent"),
        pytest.param(b'{"stream": true}', RequestHead(stream=True), id="stream"),
        pytest.param(
            b'{"stream": true, "stream_options": {"include_usage": true}}',
            RequestHead(stream=True, wants_usage=True),
            id="stream with usage",
        ),
        pytest.param(
            b'{"stream": true, "stream_options": {"include_usage": null, "x": 1}}',
            RequestHead(stream=True),
            id="options without it",
        ),
        pytest.param(b'{"stream_options": {"include_usage": true}}', RequestHead(), id="usage of no stream"),
    ],
)
def test_the_head_is_read(body: bytes, head: RequestHead) -> None:
    assert OPENAI.read_head(CHAT, body) == head


@pytest.mark.parametrize(
    ("body", "param"),
    [
        pytest.param(b'{"model": 4}', "model", id="model"),
        pytest.param(b'{"stream": "true"}', "stream", id="stream as text"),
        pytest.param(b'{"stream": 1}', "stream", id="stream as a number"),
        pytest.param(b'{"stream_options": []}', "stream_options", id="options"),
        pytest.param(
            b'{"stream_options": {"include_usage": "yes"}}', "stream_options.include_usage", id="include_usage"
        ),
    ],
)
def test_a_wrong_type_is_refused_by_name(body: bytes, param: str) -> None:
    with pytest.raises(BadRequest, match=param) as caught:
        OPENAI.read_head(CHAT, body)

    assert caught.value.param == param


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param(b"", "invalid_json", id="empty"),
        pytest.param(b"[]", "invalid_json", id="no object"),
        pytest.param(b'{"model": "a", "model": "b"}', "duplicate_member", id="a member twice"),
        pytest.param(b'{"model": "\\ud800"}', "invalid_json", id="half a surrogate pair"),
        pytest.param(b'{"n": NaN}', "invalid_json", id="NaN"),
        pytest.param(b'{"a": ' + b"[" * 500 + b"]" * 500 + b"}", "json_too_complex", id="deep"),
    ],
)
def test_hostile_json_is_refused_at_the_door(body: bytes, code: str) -> None:
    with pytest.raises(BadRequest) as caught:
        OPENAI.read_head(CHAT, body)

    assert caught.value.code == code


@pytest.mark.parametrize(
    ("body", "changes", "prepared"),
    [
        pytest.param(b'{ "model":"a" , "n":1.0 }', {"model": "b"}, b'{ "model":"b" , "n":1.0 }', id="another model"),
        pytest.param(b'{"n":1.0}', {"model": "b"}, b'{"n":1.0,"model":"b"}', id="a model"),
        pytest.param(b'{ "model":"a" }', {"model": "a"}, b'{ "model":"a" }', id="the same model"),
        pytest.param(b'{"stream":true}', {"stream": False}, b'{"stream":false}', id="plain"),
        pytest.param(b"{}", {"stream": False}, b"{}", id="plain already"),
        pytest.param(
            b'{"stream":true,"stream_options":{"include_usage":true},"n":1}',
            {"stream": False},
            b'{"stream":false,"n":1}',
            id="plain takes no stream options",
        ),
        pytest.param(
            b'{"stream":true}',
            {"ask_usage": True},
            b'{"stream":true,"stream_options":{"include_usage":true}}',
            id="usage",
        ),
        pytest.param(
            b'{"stream":true,"stream_options":null}',
            {"ask_usage": True},
            b'{"stream":true,"stream_options":{"include_usage":true}}',
            id="usage where options are null",
        ),
        pytest.param(
            b'{"stream":true,"stream_options":{"include_obfuscation": false}}',
            {"ask_usage": True},
            b'{"stream":true,"stream_options":{"include_obfuscation": false,"include_usage":true}}',
            id="usage beside another option",
        ),
        pytest.param(
            b'{"stream":true,"stream_options":{ "include_usage":true }}',
            {"ask_usage": True},
            b'{"stream":true,"stream_options":{ "include_usage":true }}',
            id="usage asked for already",
        ),
        pytest.param(b'{"stream":false}', {"ask_usage": True}, b'{"stream":false}', id="usage only of a stream"),
        pytest.param(
            b"{}",
            {"stream": True, "ask_usage": True},
            b'{"stream":true,"stream_options":{"include_usage":true}}',
            id="a stream with usage",
        ),
    ],
)
def test_a_request_is_prepared_with_the_fewest_changes(
    body: bytes, changes: dict[str, object], prepared: bytes
) -> None:
    assert OPENAI.prepare(CHAT, body, **changes) == prepared  # type: ignore[arg-type]


@pytest.mark.repeats
@given(requests())
def test_preparing_for_nothing_changes_nothing(body: bytes) -> None:
    assert OPENAI.prepare(CHAT, body) == body


@pytest.mark.repeats
@given(requests())
def test_another_model_changes_only_the_model(body: bytes) -> None:
    prepared = OPENAI.prepare(CHAT, body, model="another")

    assert json.loads(prepared) == json.loads(body) | {"model": "another"}
    assert len(prepared) - len('"another"') == len(body) - len(raw_model(body))


def raw_model(body: bytes) -> bytes:
    return bytes(msgspec.json.decode(body, type=dict[str, msgspec.Raw])["model"])


def test_only_chat_can_be_streamed() -> None:
    body = b'{"model":"a","input":"x"}'

    assert OPENAI.prepare(EMBEDDINGS, body, stream=True, ask_usage=True) == body
