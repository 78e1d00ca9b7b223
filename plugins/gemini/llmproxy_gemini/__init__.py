"""
Google's Gemini protocol, and the provider that speaks it.

Dialect and provider `gemini`; docs/dialects/gemini.md says what is supported and how it maps to other protocols.
"""

from llmproxy_gemini.dialect import GeminiDialect
from llmproxy_gemini.plugin import GeminiConfig, llmproxy_dialects, llmproxy_providers

__all__ = ["GeminiConfig", "GeminiDialect", "llmproxy_dialects", "llmproxy_providers"]
