"""What of an upstream's answer crosses to the client: headers, and errors without our secrets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import compress

from llmproxy_core.attempt import Attempt
from llmproxy_core.dialect import Dialect
from llmproxy_core.errors import ReceivedBody, UpstreamAuthError, UpstreamError, UpstreamGarbage
from llmproxy_core.llm import UpstreamResponse
from llmproxy_core.response import redact_error
from llmproxy_core.secret import Secret
from llmproxy_core.upstream_read import read_head

_MAX_ERROR_BYTES = 1 << 20  # some validators quote the whole request
_REMEMBERED_HEADS = 64  # the names of an upstream's headers are its choice, and each memory is of all in one answer


class Crossing:
    """Reads the heads and the errors of one LLM's upstream."""

    def __init__(self, dialect: Dialect, secrets: Sequence[Secret], max_response_bytes: int) -> None:
        self._dialect = dialect
        self._secrets = secrets
        self._texts = tuple(secret.reveal() for secret in secrets)
        self._max_error_bytes = min(_MAX_ERROR_BYTES, max_response_bytes)
        # Of all names of an answer at once: nearly all answers of an upstream have the same.
        self._crosses = lru_cache(_REMEMBERED_HEADS)(lambda names: tuple(map(dialect.crosses, names)))

    def headers(self, answer: UpstreamResponse, attempt: Attempt) -> list[tuple[str, str]]:
        """Those of *answer* that the client may see, and the provider's id of the call."""
        theirs = answer.headers
        first = theirs.first
        if theirs.has_repeated:
            headers = list(compress(theirs, self._crosses(tuple([name for name, _ in theirs]))))
        else:
            headers = list(compress(first.items(), self._crosses(tuple(first))))  # no step of Python's for each
        text = attempt.upstream_id
        if text:
            for secret in self._texts:
                if secret in text:
                    text = self.redact(text.encode("latin-1", "replace")).decode("latin-1")
                    break
            headers.append(("x-upstream-request-id", text))
        return headers

    async def error(self, answer: UpstreamResponse, attempt: Attempt) -> UpstreamError:
        """The provider's error answer as ours, our own secrets cut out of what it quotes."""
        try:
            body, is_whole = await read_head(answer, self._max_error_bytes)
        finally:
            answer.body.close()
        if 300 <= answer.status < 400:
            return UpstreamGarbage(f"The upstream redirects (status {answer.status}); redirects are not followed")
        if is_encoded(answer):
            body, is_whole = b"", False  # no secret can be found in it
        error = self._dialect.read_error(answer.status, answer.headers, self.redact(body))
        if is_whole and not isinstance(error, UpstreamAuthError):
            content_type = answer.headers.get("content-type", "").encode("latin-1", "replace")
            error.received = ReceivedBody(body, self.redact(content_type).decode("latin-1"))
        redact_error(error, self.redact)  # also what was escaped in the body
        error.headers = tuple(self.headers(answer, attempt))
        return error

    def redact(self, text: bytes) -> bytes:
        """*text* without the secrets of this LLM's configuration."""
        for secret in self._secrets:
            text = secret.redact(text)
        return text


def is_encoded(answer: UpstreamResponse) -> bool:
    """Whether its body is in a content encoding, which we never ask for."""
    return answer.headers.get("content-encoding", "").strip().lower() not in ("", "identity")
