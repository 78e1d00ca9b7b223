"""The wire forms of OpenAI's API, and which of them a path names."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote

from llmproxy_core.dialect import Api, Located, Operation

CHAT = Api("openai.chat", Operation.CHAT, "POST", "/chat/completions")
COMPLETIONS = Api("openai.completions", Operation.CHAT, "POST", "/completions")
EMBEDDINGS = Api("openai.embeddings", Operation.EMBEDDINGS, "POST", "/embeddings")
MODELS = Api("openai.models", Operation.MODELS, "GET", "/models", has_body=False)
MODEL = Api("openai.model", Operation.MODELS, "GET", "/models/{model}", has_body=False)

APIS = (CHAT, COMPLETIONS, EMBEDDINGS, MODELS, MODEL)


def locate(apis: Sequence[Api], root: str, path: str) -> list[Located]:
    """
    Those of *apis* whose path ends *path*, the longest suffix first; *root* (`/v1`) before it belongs to it.

    A model's name is given decoded: `%2F` in it is a slash of the name.
    """
    found = [located for api in apis if (located := _locate(api, root, path)) is not None]
    return sorted(found, key=lambda located: located.start)


def _locate(api: Api, root: str, path: str) -> Located | None:
    fixed, is_open, _ = api.path.partition("{model}")
    if not is_open:
        return Located(api, _with_root(root, path, len(path) - len(fixed))) if path.endswith(fixed) else None
    # Names hold slashes, so the first place counts; the one behind the version is the API's for certain.
    start = path.find(root + fixed)
    start = path.find(fixed) if start < 0 else start + len(root)
    if start < 0 or not (name := unquote(path[start + len(fixed) :])):
        return None
    return Located(api, _with_root(root, path, start), name)


def _with_root(root: str, path: str, start: int) -> int:
    return start - len(root) if path.endswith(root, 0, start) else start
