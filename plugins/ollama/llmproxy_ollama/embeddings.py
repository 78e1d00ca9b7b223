"""Embeddings: `{"model", "input", "dimensions"}`, answered `{"model", "embeddings", "prompt_eval_count"}`."""

import msgspec

from llmproxy_core import EmbeddingsReply, EmbeddingsRequest, Translation
from llmproxy_core.wire import (
    INTEGER,
    STRING,
    STRING_OR_STRINGS,
    Kind,
    Members,
    Wire,
    bad_request,
    encode,
    join_object,
)
from llmproxy_ollama.apis import EMBED
from llmproxy_ollama.reply import answer, read_usage

_VECTORS: Kind[list[list[float]]] = Kind("a list of vectors", msgspec.json.Decoder(list[list[float]]).decode)
_OF_THE_MACHINE = ("keep_alive", "options", "truncate")


def read_request(body: bytes) -> EmbeddingsRequest:
    members = Members(body, "", bad_request)
    given = members.need("input", STRING_OR_STRINGS)
    model, dimensions = members.take("model", STRING), members.take("dimensions", INTEGER)
    for name in _OF_THE_MACHINE:
        members.raw(name)
    inputs = (given,) if isinstance(given, str) else tuple(given)
    return EmbeddingsRequest(model, inputs, dimensions, extra=tuple(members.rest()))


def write_request(asked: EmbeddingsRequest, translation: Translation | None) -> bytes:
    wire = Wire(EMBED.form, own=translation is None, translation=translation)
    texts = [text for text in asked.inputs if isinstance(text, str)]
    if len(texts) < len(asked.inputs):
        wire.refuse("input", "texts as tokens")
    for name in ("task", "title", "dtype"):
        if getattr(asked, name) is not None:
            wire.refuse(name, f"the field {name!r}")
    if asked.user is not None and translation is not None:
        translation.advise("user")
    for name in asked.extra:
        wire.refuse_member(name, name)
    members = {"model": encode(asked.model), "input": encode(texts)}
    return join_object(members | ({} if asked.dimensions is None else {"dimensions": encode(asked.dimensions)}))


def read_reply(body: bytes) -> EmbeddingsReply:
    members = answer(body)
    vectors = members.need("embeddings", _VECTORS)
    usage = read_usage(members, has_output=False)
    return EmbeddingsReply(members.take("model", STRING) or "", tuple(map(tuple, vectors)), usage)


def write_reply(reply: EmbeddingsReply) -> bytes:
    usage = {} if reply.usage is None else {"prompt_eval_count": encode(reply.usage.input_tokens)}
    return join_object({"model": encode(reply.model), "embeddings": encode(reply.vectors)} | usage)
