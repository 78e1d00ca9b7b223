"""Embeddings, asked for and answered in OpenAI's words."""

import base64
import json
import struct
from typing import Any

import pytest

from llmproxy_core.embeddings import EmbeddingsReply, EmbeddingsRequest
from llmproxy_core.errors import BadRequest, Unsupported, UpstreamGarbage
from llmproxy_core.translation import Translation
from llmproxy_core.usage import Usage
from llmproxy_openai import OpenAIDialect
from llmproxy_openai.paths import EMBEDDINGS
from tests.recordings import recordings

OPENAI = OpenAIDialect()
ASKED = EmbeddingsRequest("m", ("a", "b"))
PACKED = base64.b64encode(struct.pack("<2f", 0.5, -1.5)).decode()


def read(**members: object) -> EmbeddingsRequest:
    return OPENAI.read_embeddings(EMBEDDINGS, json.dumps(members).encode())


@pytest.mark.parametrize(
    ("members", "asked"),
    [
        ({"input": "a"}, EmbeddingsRequest("m", ("a",))),
        ({"input": ["a", "b"]}, ASKED),
        ({"input": [1, 2]}, EmbeddingsRequest("m", ((1, 2),))),
        ({"input": [[1], [2, 3]]}, EmbeddingsRequest("m", ((1,), (2, 3)))),
        ({"input": []}, EmbeddingsRequest("m", ())),
        (
            {"input": "a", "dimensions": 5, "encoding_format": "base64", "user": "u", "odd": 1},
            EmbeddingsRequest("m", ("a",), 5, "base64", "u", extra=("odd",)),
        ),
    ],
)
def test_a_request_is_understood(members: dict[str, Any], asked: EmbeddingsRequest) -> None:
    assert read(model="m", **members) == asked


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({}, "input"),
        ({"input": 5}, "input"),
        ({"input": ["a", 5]}, "input[1]"),
        ({"input": [5, "a"]}, "input"),
        ({"input": "a", "dimensions": "x"}, "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
    ],
)
def test_a_mistake_is_named(members: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(**members)

    assert caught.value.param == param


def test_a_request_of_another_protocol_is_said_in_openais_words() -> None:
    asked = EmbeddingsRequest("m", ("a", (1, 2)), 5, "base64", "u", dtype="float")

    assert json.loads(OPENAI.write_embeddings(EMBEDDINGS, asked)) == {
        "model": "m",
        "input": ["a", [1, 2]],
        "user": "u",
        "dimensions": 5,
    }


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        (EmbeddingsRequest("m", ("a",), task="RETRIEVAL_QUERY"), "task"),
        (EmbeddingsRequest("m", ("a",), title="t"), "title"),
        (EmbeddingsRequest("m", ("a",), dtype="int8"), "dtype"),
        (EmbeddingsRequest("m", ("a",), extra=("odd",)), "odd"),
    ],
)
def test_what_openai_cannot_say_is_refused_or_dropped(asked: EmbeddingsRequest, place: str) -> None:
    drops = Translation(drops=True)

    with pytest.raises(Unsupported) as caught:
        OPENAI.write_embeddings(EMBEDDINGS, asked, Translation())
    body = json.loads(OPENAI.write_embeddings(EMBEDDINGS, asked, drops))

    assert caught.value.param == place
    assert body == {"model": "m", "input": ["a"]}
    assert drops.changes == {place: "dropped"}


def test_a_recorded_answer_is_understood() -> None:
    told = {str(it): it.response_body for it in recordings(protocol="embeddings") if it.response_status == 200}
    read = {name: OPENAI.read_embeddings_reply(EMBEDDINGS, body) for name, body in told.items()}

    (mistral,) = (name for name in told if name.startswith("mistral/"))
    (openai,) = (name for name in told if name.startswith("openai/"))
    assert list(read[mistral].vectors[0]) == json.loads(told[mistral])["data"][0]["embedding"]
    packed = base64.b64decode(json.loads(told[openai])["data"][0]["embedding"])
    assert struct.pack(f"<{len(read[openai].vectors[0])}f", *read[openai].vectors[0]) == packed
    assert all(reply.usage is not None for reply in read.values())


def test_vectors_come_in_the_order_of_their_indexes_however_they_are_encoded() -> None:
    data = [{"index": 1, "embedding": [1]}, {"index": 0, "embedding": PACKED}]

    reply = OPENAI.read_embeddings_reply(EMBEDDINGS, json.dumps({"data": data, "model": "m"}).encode())

    assert reply == EmbeddingsReply("m", ((0.5, -1.5), (1.0,)))


@pytest.mark.parametrize(
    "body", [{}, {"data": [{}]}, {"data": [{"embedding": "x"}]}, {"data": [{"embedding": ["x"]}]}], ids=str
)
def test_an_answer_without_vectors_is_garbage(body: object) -> None:
    with pytest.raises(UpstreamGarbage):
        OPENAI.read_embeddings_reply(EMBEDDINGS, json.dumps(body).encode())


@pytest.mark.parametrize(("encoding", "said"), [("float", [0.5, -1.5]), ("base64", PACKED)])
def test_a_client_gets_vectors_as_it_asked_for_them(encoding: Any, said: object) -> None:
    reply = EmbeddingsReply("m", ((0.5, -1.5),), Usage(3))

    out = json.loads(
        OPENAI.write_embeddings_reply(EMBEDDINGS, reply, EmbeddingsRequest("m", ("a",), encoding=encoding))
    )

    assert out == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": said}],
        "model": "m",
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }
