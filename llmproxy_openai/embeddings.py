"""Embeddings, asked for and answered."""

from __future__ import annotations

import base64
import binascii
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from llmproxy_core.embeddings import EmbeddingInput, EmbeddingsReply, EmbeddingsRequest
from llmproxy_core.errors import UpstreamGarbage
from llmproxy_core.translation import Translation, unsupported
from llmproxy_core.wire import (
    INTEGER,
    STRING,
    Kind,
    Members,
    Wire,
    array,
    bad_request,
    decode,
    encode,
    garbage,
    join_array,
    join_object,
    made_id,
)
from llmproxy_openai.usage import read_usage

_TOKENS: Kind[list[int]] = Kind("a list of integers", msgspec.json.Decoder(list[int]).decode)
_NUMBERS: Kind[list[float]] = Kind("a list of numbers", msgspec.json.Decoder(list[float]).decode)

Names = Mapping[str, str]
"""Fields of EmbeddingsRequest: the members that say them."""

OPENAI_NAMES: Names = {"dimensions": "dimensions", "user": "user"}


# -- requests ----------------------------------------------------------------------------------------------------------


def read_request(body: bytes, names: Names = OPENAI_NAMES) -> EmbeddingsRequest:
    """The meaning of *body*. BadRequest names the member that is wrong."""
    members = Members(body, "", bad_request)
    model = members.take("model", STRING)
    inputs = _read_inputs(members)
    dimensions = members.take(names["dimensions"], INTEGER)
    words = {field: members.take(names[field], STRING) for field in ("user", "dtype") if field in names}
    encoding: Literal["float", "base64"] = "float"
    match members.take("encoding_format", STRING):
        case "base64":
            encoding = "base64"
        case None | "float":
            pass
        case _:
            raise bad_request("encoding_format", "float or base64")
    return EmbeddingsRequest(
        model,
        inputs,
        dimensions,
        encoding,
        user=words.get("user"),
        dtype=words.get("dtype"),
        extra=tuple(members.rest()),
    )


def _read_inputs(members: Members) -> tuple[EmbeddingInput, ...]:
    """A text, a list of texts, the tokens of one, or a list of such lists."""
    text = members.raw("input")
    if text is None:
        raise bad_request("input", "a text or a list of them")
    if not text.startswith(b"["):
        return (decode(STRING, text, "input", bad_request),)
    items = array(text, "input", bad_request)
    if items and not items[0].startswith((b'"', b"[")):
        return (_read_tokens(text, "input"),)
    return tuple(_read_input(item, f"input[{index}]") for index, item in enumerate(items))


def _read_input(text: bytes, place: str) -> EmbeddingInput:
    return _read_tokens(text, place) if text.startswith(b"[") else decode(STRING, text, place, bad_request)


def _read_tokens(text: bytes, place: str) -> tuple[int, ...]:
    tokens: list[int] = decode(_TOKENS, text, place, bad_request)
    return tuple(tokens)


def write_request(
    api: str,
    asked: EmbeddingsRequest,
    translation: Translation | None = None,
    names: Names = OPENAI_NAMES,
    *,
    takes_tokens: bool = True,
) -> bytes:
    """*asked* of another protocol. Its answer is asked for in numbers, whatever the client wants."""
    wire = Wire(api, translation=translation)
    if not takes_tokens and any(not isinstance(text, str) for text in asked.inputs):
        raise unsupported("input", "texts as tokens")
    members = {"model": encode(asked.model), "input": encode(asked.inputs)}
    for field in ("task", "title", "dtype", "user", "dimensions"):
        value = getattr(asked, field)
        if value is None or (field == "dtype" and value == "float"):
            continue
        if field in names:
            members[names[field]] = encode(value)
        elif field == "user" and translation is not None:
            translation.advise(field)
        else:
            wire.refuse(field, f"the field {field!r} of embeddings")
    for name in asked.extra:
        wire.refuse_member(name, name)
    return join_object(members)


# -- answers -----------------------------------------------------------------------------------------------------------


def read_reply(body: bytes) -> EmbeddingsReply:
    """The meaning of a 2xx body, the vectors in the order of their indexes. UpstreamGarbage when it has none."""
    members = Members(body, "", garbage)
    if members.peek("data") is None:
        raise garbage("data", "a list")
    found: list[tuple[int, tuple[float, ...]]] = []
    for position, text in enumerate(members.array("data")):
        entry = Members(text, f"data[{position}]", garbage)
        index = entry.take("index", INTEGER)
        vector = entry.raw("embedding")
        if vector is None:
            raise garbage(entry.at("embedding"), "a list of numbers")
        found.append((position if index is None else index, _read_vector(vector, entry.at("embedding"))))
    vectors = tuple(vector for _, vector in sorted(found, key=lambda each: each[0]))
    usage = members.raw("usage")
    told = None if usage is None else read_usage(usage, has_output=False)
    return EmbeddingsReply(members.take("model", STRING) or "", vectors, told)


def _read_vector(text: bytes, place: str) -> tuple[float, ...]:
    if not text.startswith(b'"'):
        numbers: list[float] = decode(_NUMBERS, text, place, garbage)
        return tuple(numbers)
    try:
        packed = base64.b64decode(decode(STRING, text, place, garbage), validate=True)
        return struct.unpack(f"<{len(packed) // 4}f", packed)
    except (binascii.Error, struct.error) as error:
        raise UpstreamGarbage(f"The provider's answer cannot be understood: {place} is no base64 of floats") from error


def write_reply(reply: EmbeddingsReply, encoding: Literal["float", "base64"], *, with_id: bool = False) -> bytes:
    """*reply* with numbers, or with base64 of little-endian 32-bit floats; *with_id* where clients want one."""
    data = [
        join_object({"object": b'"embedding"', "index": encode(index), "embedding": _write_vector(vector, encoding)})
        for index, vector in enumerate(reply.vectors)
    ]
    tokens = encode(0 if reply.usage is None else reply.usage.input_tokens)
    return join_object(
        ({"id": encode(made_id(time.time_ns(), prefix=""))} if with_id else {})
        | {
            "object": b'"list"',
            "data": join_array(data),
            "model": encode(reply.model),
            "usage": join_object({"prompt_tokens": tokens, "total_tokens": tokens}),
        }
    )


def _write_vector(vector: Sequence[float], encoding: str) -> bytes:
    if encoding == "float":
        return encode(vector)
    return encode(base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode())
