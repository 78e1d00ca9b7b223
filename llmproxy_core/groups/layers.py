"""What an LLM was made around."""

from __future__ import annotations

from collections.abc import Iterator

from llmproxy_core.groups.guarded import Guarded
from llmproxy_core.groups.keys import Keys
from llmproxy_core.groups.tried import Tried
from llmproxy_core.llm import LLMClient


def layers(llm: LLMClient) -> Iterator[LLMClient]:
    """*llm*, and what it was made around; of a group not its members."""
    yield llm
    if isinstance(llm, Tried | Guarded | Keys):
        for inner in llm.inside:
            yield from layers(inner)
