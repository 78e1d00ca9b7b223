"""The wire forms of Gemini's API."""

from __future__ import annotations

from llmproxy_core import Api, Operation

NAME = "gemini"
"""The dialect's name: who issued a signature that only this provider can read."""

FORM = "gemini.generate"
"""The JSON that a plain call and both forms of a streamed one share."""

EVENTS = "alt=sse"
_ARRAY_TYPE = "application/json"


def _calls(prefix: str, folder: str) -> tuple[Api, ...]:
    path = f"/{folder}/{{model}}"
    stream = path + ":streamGenerateContent"
    return (
        Api(f"{prefix}generate", Operation.CHAT, "POST", path + ":generateContent", form=FORM, streams=False),
        Api(f"{prefix}stream", Operation.CHAT, "POST", stream, form=FORM, streams=True, query=EVENTS),
        Api(
            f"{prefix}stream_array",
            Operation.CHAT,
            "POST",
            stream,
            form=FORM,
            streams=True,
            stream_type=_ARRAY_TYPE,
        ),
    )


GENERATE, STREAM, STREAM_ARRAY = _calls("gemini.", "models")
TUNED_GENERATE, TUNED_STREAM, TUNED_STREAM_ARRAY = _calls("gemini.tuned_", "tunedModels")
COUNT = Api("gemini.count_tokens", Operation.COUNT_TOKENS, "POST", "/models/{model}:countTokens")
TUNED_COUNT = Api(
    "gemini.tuned_count_tokens", Operation.COUNT_TOKENS, "POST", "/tunedModels/{model}:countTokens", form=COUNT.name
)
EMBED_BATCH = Api("gemini.embed_batch", Operation.EMBEDDINGS, "POST", "/models/{model}:batchEmbedContents")
EMBED = Api("gemini.embed", Operation.EMBEDDINGS, "POST", "/models/{model}:embedContent")
_LONGEST_PAGE = "pageSize=1000"
MODELS = Api("gemini.models", Operation.MODELS, "GET", "/models", has_body=False, translated_query=_LONGEST_PAGE)
MODEL = Api("gemini.model", Operation.MODELS, "GET", "/models/{model}", has_body=False)

APIS = (
    GENERATE,
    STREAM,
    STREAM_ARRAY,
    TUNED_GENERATE,
    TUNED_STREAM,
    TUNED_STREAM_ARRAY,
    COUNT,
    TUNED_COUNT,
    EMBED_BATCH,
    EMBED,
    MODELS,
    MODEL,
)


def is_array(api: Api) -> bool:
    """Whether the chunks of a stream of *api* are the elements of one JSON array."""
    return api.stream_type == _ARRAY_TYPE
