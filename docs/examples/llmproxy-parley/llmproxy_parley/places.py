"""Embeddings: `{"model", "of": [texts], "axes"}`, answered `{"model", "places": [[numbers]], "tokens": {"in"}}`."""

import msgspec

from llmproxy_core import EmbeddingsReply, EmbeddingsRequest, Translation
from llmproxy_core.wire import (
    INTEGER,
    STRING,
    STRINGS,
    Kind,
    Members,
    Wire,
    bad_request,
    encode,
    garbage,
    join_object,
)
from llmproxy_parley.apis import PLACES
from llmproxy_parley.reply import read_usage, write_usage

_VECTORS: Kind[list[list[float]]] = Kind("a list of vectors", msgspec.json.Decoder(list[list[float]]).decode)


def read_request(body: bytes) -> EmbeddingsRequest:
    members = Members(body, "", bad_request)
    texts = members.need("of", STRINGS)
    return EmbeddingsRequest(
        model=members.take("model", STRING),
        inputs=tuple(texts),
        dimensions=members.take("axes", INTEGER),
        extra=tuple(members.rest()),
    )


def write_request(asked: EmbeddingsRequest, translation: Translation | None) -> bytes:
    wire = Wire(PLACES.form, own=translation is None, translation=translation)
    texts = [text for text in asked.inputs if isinstance(text, str)]
    if len(texts) < len(asked.inputs):
        wire.refuse("input", "texts as tokens")
    if asked.task is not None:
        wire.refuse("task", "a task")
    if asked.user is not None and translation is not None:
        translation.advise("user")
    for name in asked.extra:
        wire.refuse_member(name, name)
    members = {"model": encode(asked.model), "of": encode(texts)}
    return join_object(members | ({} if asked.dimensions is None else {"axes": encode(asked.dimensions)}))


def read_reply(body: bytes) -> EmbeddingsReply:
    members = Members(body, "", garbage)
    vectors = members.need("places", _VECTORS)
    usage = read_usage(members.object("tokens"))
    return EmbeddingsReply(members.take("model", STRING) or "", tuple(map(tuple, vectors)), usage)


def write_reply(reply: EmbeddingsReply) -> bytes:
    members = {"model": encode(reply.model), "places": encode(reply.vectors)}
    return join_object(members | ({} if reply.usage is None else {"tokens": write_usage(reply.usage)}))
