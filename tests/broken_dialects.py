"""OpenAI's dialect with one fault each, in what it reads and writes whole; those of streams are in broken_streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import msgspec

from llmproxy_core import (
    Api,
    Frame,
    Headers,
    Located,
    ModelInfo,
    Operation,
    ReplyHead,
    RequestHead,
    Secret,
    StreamReader,
)
from llmproxy_core.chat import (
    ChatReply,
    ChatRequest,
    Failed,
    ReasoningPart,
    TextPart,
)
from llmproxy_core.embeddings import EmbeddingsReply, EmbeddingsRequest
from llmproxy_core.errors import ProxyError, UpstreamError, UpstreamGarbage
from llmproxy_core.testing.dialect.conversations import SIGNATURE
from llmproxy_core.translation import Translation
from llmproxy_openai import OpenAIDialect
from tests.faults import Wrapped, again, fault

# -- calls -----------------------------------------------------------------------------------------------------------


@fault("it finds itself in the wrong place", "is_found_at_its_paths")
class WrongPlace(OpenAIDialect):
    def locate(self, path: str) -> Sequence[Located]:
        return [attrs.evolve(found, start=0) for found in super().locate(path)]


@fault("it claims every request", "is_found_at_its_paths")
class ClaimsAll(OpenAIDialect):
    def claims(self, api: Api, headers: Headers, query: str) -> bool:
        return True


@fault("it sends no key", "keeps_keys_in_headers")
class NoKey(OpenAIDialect):
    def auth_headers(self, key: Secret) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {key}")]


@fault("it keeps the key", "keeps_keys_in_headers")
class KeepsKey(OpenAIDialect):
    def auth_headers(self, key: Secret) -> list[tuple[str, str]]:
        self.key = key.reveal()
        return super().auth_headers(key)


@fault("it forwards the client's key", "keeps_keys_in_headers")
class ForwardsKey(OpenAIDialect):
    request_headers = OpenAIDialect.request_headers | {"authorization"}


@fault("it lets cookies cross", "lets_the_right_headers_cross")
class Cookies(OpenAIDialect):
    response_headers = OpenAIDialect.response_headers | {"set-cookie"}


# -- requests --------------------------------------------------------------------------------------------------------


@fault("it loses the temperature", "says_what_it_declares")
class LosesTemperature(OpenAIDialect):
    def read_chat(self, api: Api, body: bytes) -> ChatRequest:
        return attrs.evolve(super().read_chat(api, body), temperature=None)


@fault("it swaps the turns", "says_what_it_declares")
class SwapsTurns(OpenAIDialect):
    def write_chat(self, api: Api, chat: ChatRequest, translation: Translation | None = None) -> bytes:
        if chat.origin is None:
            chat = attrs.evolve(chat, messages=chat.messages[::-1])
        return super().write_chat(api, chat, translation)


@fault("its scan overlooks streams", "reads_heads")
class NoStreamHead(OpenAIDialect):
    def read_head(self, api: Api, body: bytes) -> RequestHead:
        return attrs.evolve(super().read_head(api, body), stream=False)


@fault("its scan takes anything", "reads_heads")
class TakesAnything(OpenAIDialect):
    def read_head(self, api: Api, body: bytes) -> RequestHead:
        try:
            return super().read_head(api, body)
        except ProxyError:
            return RequestHead()


@fault("it fails with a bug for what is no request", "reads_heads")
class BugForGarbage(OpenAIDialect):
    def read_chat(self, api: Api, body: bytes) -> ChatRequest:
        msgspec.json.decode(body)
        return super().read_chat(api, body)


@fault("it writes requests anew", "keeps_untouched_requests")
class WritesAnew(OpenAIDialect):
    def write_chat(self, api: Api, chat: ChatRequest, translation: Translation | None = None) -> bytes:
        return again(super().write_chat(api, chat, translation))


@fault("an edit writes everything anew", "edits_one_message_alone")
class EditsAnew(OpenAIDialect):
    def write_chat(self, api: Api, chat: ChatRequest, translation: Translation | None = None) -> bytes:
        body = super().write_chat(api, chat, translation)
        touched = chat.origin is not None and body != chat.origin.text
        return again(body) if touched else body


@fault("an edit loses unknown members", "edits_one_message_alone")
class EditsLose(OpenAIDialect):
    def write_chat(self, api: Api, chat: ChatRequest, translation: Translation | None = None) -> bytes:
        messages = [it if it.raw is not None else attrs.evolve(it, extra={}) for it in chat.messages]
        return super().write_chat(api, attrs.evolve(chat, messages=tuple(messages)), translation)


@fault("it prepares more than it is asked", "prepares_what_it_is_asked")
class PreparesMore(OpenAIDialect):
    def prepare(self, api: Api, body: bytes, **asked: Any) -> bytes:
        return super().prepare(api, body, **(asked | {"stream": True}))


@fault("it forgets to ask for usage", "prepares_what_it_is_asked")
class NoUsage(OpenAIDialect):
    def prepare(self, api: Api, body: bytes, **asked: Any) -> bytes:
        return super().prepare(api, body, **(asked | {"ask_usage": False}))


# -- whole answers ---------------------------------------------------------------------------------------------------


@fault("it loses cached tokens", "answers_what_it_declares")
class LosesCached(OpenAIDialect):
    def read_reply(self, api: Api, body: bytes) -> ChatReply:
        reply = super().read_reply(api, body)
        return attrs.evolve(reply, usage=reply.usage and attrs.evolve(reply.usage, cached_input_tokens=0))


@fault("it writes answers anew", "keeps_untouched_replies")
class AnswersAnew(OpenAIDialect):
    def write_reply(self, api: Api, reply: ChatReply) -> bytes:
        return again(super().write_reply(api, reply))


@fault("a rewritten answer loses unknown members", "rewrites_the_text_of_replies_alone")
class RewritesLose(OpenAIDialect):
    def write_reply(self, api: Api, reply: ChatReply) -> bytes:
        origin = reply.origin
        if origin is not None and origin.api == api.name and reply.choices != origin.value.choices:  # type: ignore[union-attr]
            reply = attrs.evolve(reply, origin=None)
        return super().write_reply(api, reply)


@fault("a rewritten answer is as it was", "rewrites_the_text_of_replies_alone")
class RewritesNothing(OpenAIDialect):
    def write_reply(self, api: Api, reply: ChatReply) -> bytes:
        own = reply.origin is not None and reply.origin.api == api.name
        return reply.origin.text if own and reply.origin is not None else super().write_reply(api, reply)


@fault("its scan loses why the answer ended", "scans_replies")
class NoFinish(OpenAIDialect):
    def scan_reply(self, api: Api, body: bytes) -> ReplyHead:
        return attrs.evolve(super().scan_reply(api, body), finish=())


@fault("an error with status 200 is an answer", "scans_replies")
class ErrorIsAnswer(OpenAIDialect):
    def scan_reply(self, api: Api, body: bytes) -> ReplyHead:
        return ReplyHead() if b'"error"' in body else super().scan_reply(api, body)


# -- errors ----------------------------------------------------------------------------------------------------------


@fault("it expects an object in `error`", "reads_every_error")
class ExpectsObject(OpenAIDialect):
    def read_error(self, status: int, headers: Headers, body: bytes) -> UpstreamError:
        message = msgspec.json.decode(body)["error"]["message"]
        return UpstreamError(message, status=status, upstream_status=status, dialect=self.name, body=body)


@fault("it forgets how long to wait", "reads_every_error")
class NeverWaits(OpenAIDialect):
    def read_error(self, status: int, headers: Headers, body: bytes) -> UpstreamError:
        return super().read_error(status, Headers(), body)


@fault("it repeats what is said of our key", "hides_what_is_said_of_our_key")
class ShowsKey(OpenAIDialect):
    def read_error(self, status: int, headers: Headers, body: bytes) -> UpstreamError:
        return super().read_error(400 if status == 401 else status, headers, body.replace(b"invalid_api_key", b""))


@fault("it rewrites its own errors", "passes_its_own_errors")
class RewritesErrors(OpenAIDialect):
    def write_error(self, error: ProxyError, request_id: str) -> bytes:
        return super().write_error(ProxyError(error.message, status=error.status, code=error.code), request_id)


@fault("it passes the errors of others", "tells_errors_in_its_own_words")
class PassesAll(OpenAIDialect):
    def write_error(self, error: ProxyError, request_id: str) -> bytes:
        return getattr(error, "body", None) or super().write_error(error, request_id)


@fault("each error is our fault", "tells_errors_in_its_own_words")
class AlwaysOurs(OpenAIDialect):
    def error_status(self, error: ProxyError) -> int:
        return 500


@fault("its failed streams look complete", "ends_failed_streams")
class DoneAfterError(OpenAIDialect):
    def error_event(self, *args: Any, **more: Any) -> bytes:
        return super().error_event(*args, **more).replace(b'"error"', b'"oops"') + b"data: [DONE]\n\n"


@fault("its error is half an event", "ends_failed_streams")
class HalfError(OpenAIDialect):
    def error_event(self, *args: Any, **more: Any) -> bytes:
        return super().error_event(*args, **more)[:-2]


@fault("an error takes what was said with it", "keeps_what_was_said_before_an_error")
class ErrorTakesAll(OpenAIDialect):
    def reader(self, api: Api) -> StreamReader:
        class Taking(Wrapped):
            def feed(self, data: bytes) -> list[Frame]:
                frames: list[Frame] = self._inner.feed(data)
                failed = any(isinstance(it, Failed) for frame in frames for it in frame.events)
                return frames[-1:] if failed else frames

        return Taking(super().reader(api))


# -- other protocols -------------------------------------------------------------------------------------------------


@fault("it loses the seed of others without a word", "says_or_refuses_what_others_ask")
class LosesSeed(OpenAIDialect):
    def write_chat(self, api: Api, chat: ChatRequest, translation: Translation | None = None) -> bytes:
        return super().write_chat(api, attrs.evolve(chat, seed=None) if translation else chat, translation)


@fault("it fails with a bug for what it cannot say", "says_or_refuses_what_others_ask")
class BugForOthers(OpenAIDialect):
    def write_chat(self, api: Api, chat: ChatRequest, translation: Translation | None = None) -> bytes:
        if chat.top_k is not None:
            raise KeyError("top_k")
        return super().write_chat(api, chat, translation)


@fault("it refuses where the operator lets things be dropped", "says_or_refuses_what_others_ask")
class NeverDrops(OpenAIDialect):
    def write_chat(self, api: Api, chat: ChatRequest, translation: Translation | None = None) -> bytes:
        return super().write_chat(api, chat, translation and Translation(llm=translation.llm))


@fault("it needs a first message", "survives_odd_histories")
class NeedsMessage(OpenAIDialect):
    def write_chat(self, api: Api, chat: ChatRequest, translation: Translation | None = None) -> bytes:
        assert chat.messages[0].role
        return super().write_chat(api, chat, translation)


@fault("it sends the signatures of others", "sends_no_signature_of_another")
class SendsSignatures(OpenAIDialect):
    def write_chat(self, api: Api, chat: ChatRequest, translation: Translation | None = None) -> bytes:
        parts = [part for message in chat.messages for part in message.content if isinstance(part, ReasoningPart)]
        body = msgspec.json.decode(super().write_chat(api, chat, translation))
        return msgspec.json.encode(body | {"signatures": [part.signature or "" for part in parts]})


@fault("it loses the answers of others", "answers_as_others_did")
class LosesAnswers(OpenAIDialect):
    def write_reply(self, api: Api, reply: ChatReply) -> bytes:
        if reply.origin is not None and reply.origin.api != api.name:
            kept = [
                attrs.evolve(it, content=tuple(part for part in it.content if not isinstance(part, TextPart)))
                for it in reply.choices
            ]
            reply = attrs.evolve(reply, choices=tuple(kept))
        return super().write_reply(api, reply)


@fault("it hands out signatures unsealed", "carries_signatures")
class Unsealed(OpenAIDialect):
    def write_reply(self, api: Api, reply: ChatReply) -> bytes:
        body = msgspec.json.decode(super().write_reply(api, reply))
        for choice in body["choices"]:
            if "reasoning_details" in choice["message"]:
                choice["message"]["reasoning_details"] = [{"type": "reasoning.text", "signature": SIGNATURE}]
        return msgspec.json.encode(body)


# -- other operations ------------------------------------------------------------------------------------------------


@fault("it mixes the vectors up", "embeds")
class MixesVectors(OpenAIDialect):
    def read_embeddings_reply(self, api: Api, body: bytes) -> EmbeddingsReply:
        reply = super().read_embeddings_reply(api, body)
        return attrs.evolve(reply, vectors=reply.vectors[::-1])


@fault("it embeds the first text alone", "embeds")
class EmbedsOne(OpenAIDialect):
    def write_embeddings(self, api: Api, asked: EmbeddingsRequest, translation: Translation | None = None) -> bytes:
        return super().write_embeddings(api, attrs.evolve(asked, inputs=asked.inputs[:1]), translation)


@fault("it loses the last model", "lists_models")
class LosesModel(OpenAIDialect):
    def write_models(self, api: Api, models: Sequence[ModelInfo]) -> bytes:
        return super().write_models(api, models[:-1] if len(models) > 1 else models)


COUNT = Api("openai.count", Operation.COUNT_TOKENS, "POST", "/chat/count", form="openai.chat")


class Counts(OpenAIDialect):
    """As OpenAI's, and it counts tokens: for the check that has nothing to try on OpenAI's own."""

    apis = (*OpenAIDialect.apis, COUNT)

    def read_count(self, api: Api, body: bytes) -> int:
        try:
            return msgspec.json.decode(body, type=dict[str, int])["count"]
        except (msgspec.MsgspecError, KeyError) as error:
            raise UpstreamGarbage("no count") from error

    def write_count(self, api: Api, tokens: int) -> bytes:
        return b'{"count":%d}' % tokens


@fault("it counts one too many", "counts_tokens")
class CountsMore(Counts):
    def read_count(self, api: Api, body: bytes) -> int:
        return super().read_count(api, body) + 1


@fault("it takes anything for a count", "counts_tokens")
class CountsAnything(Counts):
    def read_count(self, api: Api, body: bytes) -> int:
        return int(msgspec.json.decode(body).get("count", 0)) if body.startswith(b'{"') else 0
