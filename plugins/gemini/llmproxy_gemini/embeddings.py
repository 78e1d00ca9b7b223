"""Texts to vectors: `embedContent` for one, `batchEmbedContents` for several."""

from __future__ import annotations

from collections.abc import Sequence

from llmproxy_core import (
    Api,
    BadRequest,
    EmbeddingsReply,
    EmbeddingsRequest,
    Translation,
    Usage,
    unsupported,
)
from llmproxy_core.wire import (
    INTEGER,
    NUMBER,
    STRING,
    Members,
    array,
    bad_request,
    decode,
    decode_array,
    decode_object,
    encode,
    garbage,
    join_array,
    join_object,
    scan,
    with_items,
    with_members,
)
from llmproxy_gemini.apis import EMBED
from llmproxy_gemini.model_kind import bare
from llmproxy_gemini.request import named
from llmproxy_gemini.request import prepare as prepare_request
from llmproxy_gemini.spelling import Spelled
from llmproxy_gemini.usage import read_usage, write_usage

_OPTIONS = ("taskType", "title", "outputDimensionality")


# -- requests --------------------------------------------------------------------------------------------------


def read_embeddings(api: Api, body: bytes) -> EmbeddingsRequest:
    """The meaning of *body*. Several texts of one call share what is said of the first."""
    scan(body)
    members = Spelled(body, "", bad_request)
    if api is EMBED:
        return _read_one(members, single=True)
    texts = members.array("requests")
    if not texts:
        raise BadRequest("'requests' must be a list of requests", param="requests")
    asked = [_read_one(Spelled(text, f"requests[{place}]", bad_request)) for place, text in enumerate(texts)]
    first = asked[0]
    extra = [name for each in asked for name in each.extra]
    for place, each in enumerate(asked[1:], 1):
        if (each.task, each.title, each.dimensions) != (first.task, first.title, first.dimensions):
            extra.append(f"requests[{place}]")
    return EmbeddingsRequest(
        first.model,
        tuple(each.inputs[0] for each in asked),
        dimensions=first.dimensions,
        task=first.task,
        title=first.title,
        extra=(*members.rest(), *extra),
    )


def _read_one(members: Spelled, *, single: bool = False) -> EmbeddingsRequest:
    content = members.object("content")
    if content is None:
        raise bad_request(members.at("content"), "an object")
    place = content.at("parts")
    parts = [Spelled(text, f"{place}[{index}]", bad_request) for index, text in enumerate(content.array("parts"))]
    text = "".join(part.need("text", STRING) for part in parts)
    model = members.take("model", STRING)
    return EmbeddingsRequest(
        None if model is None else bare(model),
        (text,),
        task=members.take("taskType", STRING),
        title=members.take("title", STRING),
        dimensions=members.take("outputDimensionality", INTEGER),
        single=single,
        extra=tuple(members.at(name) for name in members.rest()),
    )


def write_embeddings(api: Api, asked: EmbeddingsRequest, translation: Translation | None = None) -> bytes:
    """*asked*, a request for each of its texts."""
    told = Translation() if translation is None else translation
    for name in asked.extra:
        told.refuse(name, "a member of another protocol")
    if asked.user is not None:
        told.advise("user")
    if asked.dtype not in {None, "float"}:
        told.refuse("dtype", f"numbers of type {asked.dtype!r}")
    texts = [_text(each) for each in asked.inputs]
    requests = [_request(text, asked) for text in texts]
    if api is not EMBED:
        return join_object({"requests": join_array(requests)})
    if len(requests) != 1:
        raise unsupported("input", "several texts in one request")
    return requests[0]


def _text(each: object) -> str:
    if not isinstance(each, str):
        raise unsupported("input", "texts as tokens")
    return each


def _request(text: str, asked: EmbeddingsRequest) -> bytes:
    members = {} if asked.model is None else {"model": named(asked.model)}
    members["content"] = join_object({"parts": join_array([join_object({"text": encode(text)})])})
    values = (asked.task, asked.title, asked.dimensions)
    return join_object(
        members | {name: encode(value) for name, value in zip(_OPTIONS, values, strict=True) if value is not None}
    )


def prepare(api: Api, body: bytes, model: str | None) -> bytes:
    """*body* for *model*, which each request in it names."""
    if model is None or b'"model"' not in body:
        return body
    if api is EMBED:
        return prepare_request(body, model)
    text = bytes(decode_object(body).get("requests", b"[]"))
    requests = [prepare_request(bytes(each), model) for each in decode_array(text)]
    return with_members(body, {"requests": with_items(text, requests)})


# -- answers ---------------------------------------------------------------------------------------------------


def read_embeddings_reply(body: bytes) -> EmbeddingsReply:
    """The vectors in *body*, one or several. It names no model, and often no usage."""
    members = Spelled(body, "", garbage)
    usage = members.raw("usageMetadata")
    if (one := members.raw("embedding")) is not None:
        texts: Sequence[bytes] = [one]
    elif members.peek("embeddings") is not None:
        texts = members.array("embeddings")
    else:
        raise garbage("embeddings", "a list")
    vectors = tuple(_vector(text, f"embeddings[{place}]") for place, text in enumerate(texts))
    return EmbeddingsReply("", vectors, None if usage is None else read_usage(usage, has_output=False))


def _vector(text: bytes, place: str) -> tuple[float, ...]:
    values = Members(text, place, garbage).raw("values")
    numbers = array(values or b"[]", f"{place}.values", garbage)
    return tuple(float(decode(NUMBER, number, f"{place}.values", garbage)) for number in numbers)


def write_embeddings_reply(reply: EmbeddingsReply, asked: EmbeddingsRequest) -> bytes:
    """*reply*: one vector by itself where one was asked for so."""
    vectors = [join_object({"values": encode(vector)}) for vector in reply.vectors]
    members = {"embedding": vectors[0]} if asked.single and vectors else {"embeddings": join_array(vectors)}
    if reply.usage is not None:
        members["usageMetadata"] = write_usage(Usage(reply.usage.input_tokens))
    return join_object(members)
