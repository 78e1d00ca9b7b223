"""
The tokenizer of the bpe-openai package (the extra `tokens`), which comes with its vocabulary: nothing is ever fetched.

No other module imports the package. It takes half a second and some 100 MB, so it is loaded when tokens are first to
be counted, in a thread; until then, and without the package, four bytes are a token.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from importlib.util import find_spec

from llmproxy_core.token_estimate import ROUGH
from llmproxy_server.aside import aside
from llmproxy_server.log_events import get_logger

_log = get_logger()

_ENCODING = "o200k_base"
"""That of OpenAI's models since GPT-4o; others make as many tokens of a text, give or take a fifth."""
_LOAD_S = 30.0

Encode = Callable[[str], Sequence[int]]


def _bundled() -> Encode:
    import bpe_openai

    encode: Encode = bpe_openai.get_encoding(_ENCODING).encode_ordinary
    return encode


class BundledTokenizer:
    """See Tokenizer. *load* gives what encodes a text, in a thread; ImportError: there is nothing better than ROUGH."""

    def __init__(self, load: Callable[[], Encode] = _bundled) -> None:
        self._load = load
        self._encode: Encode | None = None
        self._lock = threading.Lock()
        self._is_hopeless = load is _bundled and find_spec("bpe_openai") is None
        self._is_loading = False

    def count(self, text: str) -> int:
        encode = self._encode
        if encode is None:
            self._begin()
            return ROUGH.count(text)
        return len(encode(text.encode("utf-8", "replace").decode()))

    async def ready(self) -> None:
        """Return once the vocabulary is there, or surely is not."""
        if self._encode is None and not self._is_hopeless:
            try:
                await aside(self._loaded, timeout_s=_LOAD_S)
            except TimeoutError:
                _log.warning("the tokenizer takes long to load: token counts are rough")

    def _begin(self) -> None:
        """Load in the background; whoever counts meanwhile has a rough count."""
        if not (self._is_loading or self._is_hopeless):
            self._is_loading = True
            threading.Thread(target=self._loaded, name="llmproxy-tokenizer", daemon=True).start()

    def _loaded(self) -> None:
        with self._lock:
            if self._encode is None and not self._is_hopeless:
                try:
                    self._encode = self._load()
                except Exception as error:  # noqa: BLE001 - counts stay rough, and why is in the log
                    self._is_hopeless = True
                    _log.warning(
                        "the tokenizer cannot be loaded: token counts are rough",
                        error=f"{type(error).__name__}: {error}",
                    )
