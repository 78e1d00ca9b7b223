"""What a protocol may have besides chat: embeddings, lists of models, counts of tokens."""

from __future__ import annotations

import attrs

from llmproxy_core.chat import ChatRequest, Message, TextPart
from llmproxy_core.dialect import Api, Operation
from llmproxy_core.embeddings import EmbeddingsReply, EmbeddingsRequest
from llmproxy_core.errors import RequestRejected, UpstreamGarbage
from llmproxy_core.model_list import ModelInfo
from llmproxy_core.testing.dialect.case import Case
from llmproxy_core.testing.dialect.declared import DeclaredDialect
from llmproxy_core.translation import Translation
from llmproxy_core.usage import Usage

_TEXTS = ("Grüße", "東京 🚲")
_VECTORS = ((0.5, -0.25, 1.0), (0.125, 0.0, -1.0))
_SHOWN = frozenset({"name", "owner"})
"""What a list may tell otherwise: how the model and its owner are shown."""
_MODELS = (
    ModelInfo("family/model-1", "Model One", 1_700_000_000, "the-owner", 128_000, 8_192),
    ModelInfo("model-2"),
)


def _written(case: Case, asked: EmbeddingsRequest) -> bytes | None:
    """The request that is sent; None when the protocol refuses it."""
    try:
        return case.dialect.write_embeddings(case.api, asked, Translation())
    except RequestRejected:
        return None
    except Exception as error:  # noqa: BLE001 - it is the finding
        case.fail(f"it raises {error!r}; only Unsupported, for what cannot be said")


# -- embeddings ----------------------------------------------------------------------------------------------------


def embeds(declared: DeclaredDialect) -> None:
    """Requests for embeddings and their answers survive the protocol; what it cannot say it refuses."""
    for api in declared.of(Operation.EMBEDDINGS):
        written = 0
        for asked in _asked(declared):
            case = Case(declared, api, f"embeddings of {asked}")
            body = _written(case, asked)
            if body is not None:
                written += 1
                _embeds(case, asked, body)
        if not written:
            Case(declared, api, "embeddings of texts").fail("all are refused: write_embeddings must write some")


def _asked(declared: DeclaredDialect) -> list[EmbeddingsRequest]:
    one = EmbeddingsRequest(declared.model, _TEXTS[:1])
    single, many = attrs.evolve(one, single=True), attrs.evolve(one, inputs=_TEXTS)
    tokens = attrs.evolve(one, inputs=((1, 2, 3),))
    return [
        one,
        single,
        many,
        tokens,
        attrs.evolve(many, dimensions=3),
        attrs.evolve(many, encoding="base64"),
        attrs.evolve(one, user="user-1"),
        attrs.evolve(one, task="RETRIEVAL_QUERY"),
        attrs.evolve(one, extra=("strange",)),
    ]


def _embeds(case: Case, asked: EmbeddingsRequest, body: bytes) -> None:
    dialect, api = case.dialect, case.api
    back = case.gives(dialect.read_embeddings, api, body)
    if back.inputs != asked.inputs or back.dimensions not in (None, asked.dimensions):
        case.fail(f"the request became {back}: {body[:300]!r}")
    if "{model}" not in api.path and back.model != asked.model:
        case.fail(f"the model became {back.model!r}: {body[:300]!r}")
    reply = EmbeddingsReply("model-1", _VECTORS[: len(asked.inputs)], Usage(7, 0))
    told = case.gives(dialect.write_embeddings_reply, api, reply, asked)
    again = case.gives(dialect.read_embeddings_reply, api, told)
    if again.vectors != reply.vectors:
        case.fail(f"the vectors became {again.vectors}: {told[:300]!r}")
    if again.usage is not None and again.usage.input_tokens != 7:
        case.fail(f"the usage became {again.usage}: {told[:300]!r}")
    for garbage in (b"", b"[]", b"{", b"<html>"):
        try:
            dialect.read_embeddings_reply(api, garbage)
        except UpstreamGarbage:
            continue
        except Exception as error:  # noqa: BLE001 - it is the finding
            case.fail(f"for the answer {garbage!r} it raises {error!r} instead of UpstreamGarbage")
        case.fail(f"{garbage!r} is taken for an answer: raise UpstreamGarbage")


# -- models --------------------------------------------------------------------------------------------------------


def lists_models(declared: DeclaredDialect) -> None:
    """A list of models is written and read again, whole or one of it; an empty one too."""
    for api in declared.of(Operation.MODELS):
        is_one = "{model}" in api.path
        for models in (_MODELS[:1], _MODELS[1:]) if is_one else (_MODELS, ()):
            case = Case(declared, api, f"the models {', '.join(it.id for it in models) or 'of an empty list'}")
            body = case.gives(declared.dialect.write_models, api, models)
            back = case.gives(declared.dialect.read_models, api, body)
            if [it.id for it in back] != [it.id for it in models]:
                case.fail(f"they became {[it.id for it in back]}: {body[:500]!r}")
            for was, now in zip(models, back, strict=True):
                _is_same_model(case, was, now)


def _is_same_model(case: Case, was: ModelInfo, now: ModelInfo) -> None:
    """What a list does not tell is None; what it tells, and was known, is right."""
    for field in attrs.fields(ModelInfo):
        before, after = getattr(was, field.name), getattr(now, field.name)
        if before is not None and after not in (None, before) and field.name not in _SHOWN:
            case.fail(f"the {field.name} of {was.id} became {after!r}")


# -- counts --------------------------------------------------------------------------------------------------------


def counts_tokens(declared: DeclaredDialect) -> None:
    """A count of tokens is written and read again; its request is a conversation."""
    for api in declared.of(Operation.COUNT_TOKENS):
        case = Case(declared, api, "a count of tokens")
        for tokens in (0, 17, 123_456):
            body = case.gives(declared.dialect.write_count, api, tokens)
            if case.gives(declared.dialect.read_count, api, body) != tokens:
                case.fail(f"{tokens} is not what is read of {body!r}")
        chat = ChatRequest(declared.model, (Message("user", (TextPart("Grüße"),)),))
        back = case.read_chat(case.write_chat(chat))
        if [message.text for message in back.messages] != ["Grüße"]:
            case.fail(f"its conversation became {back.messages}")
        _refuses_no_counts(case, api)


def _refuses_no_counts(case: Case, api: Api) -> None:
    for garbage in (b"", b"[]", b"{", b"{}"):
        try:
            case.dialect.read_count(api, garbage)
        except UpstreamGarbage:
            continue
        except Exception as error:  # noqa: BLE001 - it is the finding
            case.fail(f"for the answer {garbage!r} it raises {error!r} instead of UpstreamGarbage")
        case.fail(f"{garbage!r} is taken for a count: raise UpstreamGarbage")
