"""A proxy in front of several fake upstreams, each an LLM of a group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.answers import completion, error, reply
from tests.exact import Seen, post
from tests.llmproxy_core.conversation import question
from tests.proxy import Proxy
from tests.script import Step
from tests.upstream import Upstream

QUICK = {"max_retries": 3, "initial_backoff_s": 0.01, "max_backoff_s": 5.0}


def group(provider: str, *upstreams: Upstream, llm: Mapping[str, Any] | None = None, **keys: Any) -> Any:
    """The LLMs `a`, `b`, ... at *upstreams* in the group `all`: *llm* is added to each of them, *keys* to the group."""
    names = "abcdefgh"[: len(upstreams)]
    llms = {
        name: {"provider": "openai", "base_url": upstream.base_url, "token_env": "KEY", **(llm or {})}
        for name, upstream in zip(names, upstreams, strict=True)
    }
    llms["all"] = {"provider": provider, "members": list(names), "retries": QUICK, **keys}
    return {"llm": llms, "route": [{"path_prefix": "/v1", "target_llm": "all", "expose_attempts": True}]}


def one(upstream: Upstream, *, tried: Any = True, **keys: Any) -> Any:
    """A configuration of one LLM, `a`; unless *tried* is False its failures are tried again."""
    llm = {"provider": "openai", "base_url": upstream.base_url, "token_env": "KEY", **keys}
    if tried:
        llm.setdefault("retries", QUICK)
    return {"llm": {"a": llm}, "route": [{"path_prefix": "/v1", "target_llm": "a", "expose_attempts": True}]}


async def ask(proxy: Proxy, *headers: tuple[str, str], **members: Any) -> Seen:
    return await post(f"{proxy.base_url}/chat/completions", question(**members), headers)


def says(text: str) -> list[Step]:
    """A plain answer."""
    return reply(completion(text))


def fails(status: int, *headers: tuple[str, str], code: str | None = None, message: str = "Sorry") -> list[Step]:
    """An answer with an error."""
    return reply(error(message, code=code), status, headers)


def told(seen: Seen) -> str:
    """Which attempts the answer tells of."""
    return seen.header("x-llmproxy-attempts") or ""
