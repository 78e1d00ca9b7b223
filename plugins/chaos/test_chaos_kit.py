"""What the tests of chaos share: a proxy with faults above or below, questions and answers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import llmproxy_chaos

from llmproxy_core import Exchange
from tests.answers import chat_chunk, stream, usage_chunk
from tests.exact import Seen, post
from tests.llmproxy_core.conversation import question
from tests.proxy import Proxy, openai_at
from tests.script import Step

PRICES = {"*": {"input": "1.00", "output": "2.00"}}
NUMBERS = "one two three four five six seven eight"
"""A streamed answer, a piece for each word."""


class Chaotic(Proxy):
    """A proxy with chaos in it."""

    def __init__(self, mapping: Mapping[str, Any], *, plugins: Sequence[object] = ()) -> None:
        super().__init__(mapping, plugins=[llmproxy_chaos, *plugins])

    async def ask(self, *, stream: bool = False, **members: Any) -> Seen:
        return await post(f"{self.base_url}/chat/completions", question(stream=stream, **members))

    @property
    def last(self) -> Exchange:
        return self.exchanges[-1]

    @property
    def injected(self) -> list[object]:
        """What the log lines of all calls so far tell."""
        return [exchange.log_fields.get("chaos") for exchange in self.exchanges]


def above(base_url: str, faults: Mapping[str, object], *, seed: int = 0, **llm: Any) -> dict[str, Any]:
    """A route with the processor, and an LLM behind it."""
    mapping = openai_at(base_url, route={"processors": ["faulty"]}, prices=PRICES, **llm)
    return {**mapping, "processor": {"faulty": {"type": "chaos", "seed": seed, "faults": dict(faults)}}}


def below(base_url: str, faults: Mapping[str, object], *, seed: int = 0, **flaky: object) -> dict[str, Any]:
    """A route to the wrapper of an LLM."""
    mapping = openai_at(base_url, route={"target_llm": "flaky"}, prices=PRICES)
    table = {"provider": "chaos", "members": ["openai"], "seed": seed, "faults": dict(faults), **flaky}
    return {**mapping, "llm": {**mapping["llm"], "flaky": table}}


def always(**figures: object) -> dict[str, object]:
    return {"share": 1, **figures}


def numbers() -> list[Step]:
    """The script of a stream that says NUMBERS and tells its usage."""
    words = re.findall(r"\w+ ?", NUMBERS)
    chunks = [chat_chunk(""), *map(chat_chunk, words), chat_chunk(None, finish="stop"), usage_chunk()]
    return stream(*chunks)


def raw_request(port: int, path: str, body: bytes, *, close: bool = False) -> bytes:
    """A request as it stands on the wire; *close*: the last of its connection."""
    lines = [
        f"POST {path} HTTP/1.1",
        f"host: 127.0.0.1:{port}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        *(["connection: close"] if close else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def streaming(port: int) -> bytes:
    """One that asks for a stream."""
    return raw_request(port, "/v1/chat/completions", question(stream=True))


def said(seen: Seen) -> str:
    """The text that came to the client of a stream."""
    chunks = [json.loads(line[6:]) for line in seen.body.split(b"\n\n") if line.startswith(b"data: {")]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices", ()))


def told(seen: Seen) -> dict[str, Any]:
    """The error that came to the client: as the answer, or as the last event of a stream."""
    last = seen.body.strip().split(b"\n\n")[-1].removeprefix(b"data: ")
    error: dict[str, Any] = json.loads(last)["error"]
    return error
