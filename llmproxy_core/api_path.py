"""Which API of a dialect a request path names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from llmproxy_core.dialect import Api


def api_start(api: Api, roots: Sequence[str], path: str) -> tuple[int, str | None] | None:
    """
    Where in *path* the suffix begins that is *api*'s own, and the model named in it; None when it does not end so.

    One of the *roots* (`/v1`) right before the suffix belongs to it. A model's name is given decoded: `%2F` in it is a
    slash of the name.
    """
    fixed, is_open, tail = api.path.partition("{model}")
    if not is_open:
        return (_with_root(roots, path, len(path) - len(fixed)), None) if path.endswith(fixed) else None
    if not path.endswith(tail):
        return None
    end = len(path) - len(tail)
    # Names hold slashes, so the first place counts; the one behind the version is the API's for certain.
    starts = [place + len(root) for root in roots if (place := path.find(root + fixed)) >= 0]
    start = min(starts) if starts else path.find(fixed)
    if start < 0 or start + len(fixed) >= end or not (name := unquote(path[start + len(fixed) : end])):
        return None
    return _with_root(roots, path, start), name


def _with_root(roots: Sequence[str], path: str, start: int) -> int:
    found = [start - len(root) for root in roots if path.endswith(root, 0, start)]
    return min(found, default=start)
