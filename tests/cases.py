"""
Every recording for every kind of client, and the provider that says it again.

    @pytest.mark.parametrize("split", SPLITS)
    @pytest.mark.parametrize("case", all_cases(stream=True, fails=False), ids=str)
    async def test_...(case: Case, split: Split) -> None:
        async with Upstream(answers_as(case.recording, split)) as upstream:
            ...  # ask the proxy as a client of case.client does
        assert check_stream(case.client, body, strict=not case.is_own) == []
"""

import re
from collections.abc import Iterable
from urllib.parse import parse_qs, urlsplit

import attrs

from tests.answers import Split, error, replay, reply
from tests.recordings import CHATS, Recording, recordings
from tests.script import Call, Handler, ScriptError

CLIENTS = ("openai", "openai-responses", "anthropic", "gemini", "gemini-array", "mistral")
"""The protocols of clients, as `check_stream` calls them."""

SPLITS: tuple[Split, ...] = ("whole", "bytes", 7)

_API = re.compile(r"/(chat/completions|completions|embeddings|responses|messages|messages/count_tokens|models)$")
_VERB = re.compile(r"/models/[^/:]+:(\w+)$")


@attrs.frozen
class Case:
    """What one provider said, to a client of one protocol."""

    recording: Recording
    client: str

    def __str__(self) -> str:
        return f"{self.recording} to {self.client}"  # the id of a parametrised test

    @property
    def is_own(self) -> bool:
        """Whether the client speaks the provider's dialect, so that nothing need be translated."""
        return self.client.removesuffix("-array") == self.recording.dialect


def all_cases(
    *,
    clients: Iterable[str] = CLIENTS,
    own: bool | None = None,
    provider: str | None = None,
    stream: bool | None = None,
    status: int | None = None,
    fails: bool | None = None,
) -> list[Case]:
    """
    Every recorded conversation for each of *clients*; what is None takes them all.

    *own*: whether client and provider speak one dialect; the rest as for `recordings`.
    """
    chosen = recordings(provider=provider, stream=stream, status=status, fails=fails)
    cases = [Case(it, client) for it in chosen if it.protocol in CHATS for client in clients]
    return [case for case in cases if own in (None, case.is_own)]


def answers_as(recording: Recording, split: Split = "whole") -> Handler:
    """
    A provider that answers as *recording* does, to a request for the same API; see `replay` for *split*.

    Anything else it answers with 404, which fails the test: the proxy asked at the wrong place.
    """
    wanted = _asked_for(recording.request_method, recording.request_path)

    async def answer(call: Call) -> None:
        asked = _asked_for(call.received.method, call.received.target)
        if asked != wanted:
            await call.play(*reply(error("not what was recorded"), 404))
            raise ScriptError(f"{recording} is an answer to {wanted}, not to {asked}")
        await call.play(*replay(recording, split))

    return answer


def _asked_for(method: str, target: str) -> tuple[str, str, list[str]]:
    """The method, the API and how its answer is framed, wherever the API is mounted and whatever the model."""
    url = urlsplit(target)
    api = _VERB.search(url.path) or _API.search(url.path)
    return method, url.path if api is None else api[1], parse_qs(url.query).get("alt", [])
