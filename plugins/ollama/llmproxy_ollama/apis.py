"""Where Ollama's own protocol is spoken. It has no version; `/api` stands in its place."""

from llmproxy_core import Api, Operation

NAME = "ollama"
ROOT = "/api"
CHAT = Api("ollama.chat", Operation.CHAT, "POST", "/chat", stream_type="application/x-ndjson")
EMBED = Api("ollama.embed", Operation.EMBEDDINGS, "POST", "/embed")
TAGS = Api("ollama.tags", Operation.MODELS, "GET", "/tags", has_body=False)
