"""The wire forms of Anthropic's API."""

from __future__ import annotations

from llmproxy_core import Api, Operation

MESSAGES = Api("anthropic.messages", Operation.CHAT, "POST", "/messages")
COUNT_TOKENS = Api("anthropic.count_tokens", Operation.COUNT_TOKENS, "POST", "/messages/count_tokens")
_LONGEST_PAGE = "limit=1000"
MODELS = Api("anthropic.models", Operation.MODELS, "GET", "/models", has_body=False, translated_query=_LONGEST_PAGE)
MODEL = Api("anthropic.model", Operation.MODELS, "GET", "/models/{model}", has_body=False)

APIS = (MESSAGES, COUNT_TOKENS, MODELS, MODEL)

NAME = "anthropic"
"""The dialect's name: who issued a signature that only this provider can read."""
