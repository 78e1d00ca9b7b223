"""Tokens that no provider tells are counted here, without a network, and a count that cannot be had is rough."""

import threading

from llmproxy_core.token_estimate import ROUGH, counted
from llmproxy_server.tokenizer import BundledTokenizer

TEXT = "The quick brown fox jumps over the lazy dog. " * 20


async def test_a_count_is_that_of_openais_own_vocabulary() -> None:
    tokenizer = BundledTokenizer()
    await tokenizer.ready()

    assert tokenizer.count("Hello world, this is a test") == 7
    assert tokenizer.count(TEXT) == 201
    assert ROUGH.count(TEXT) == 225


async def test_texts_that_look_like_marks_or_are_half_characters_are_counted_too() -> None:
    tokenizer = BundledTokenizer()
    await tokenizer.ready()

    assert tokenizer.count("<|endoftext|>") > 1
    assert tokenizer.count("\ud83d") >= 1
    assert tokenizer.count("") == 0


async def test_before_it_is_loaded_a_count_is_rough_and_waits_for_nothing() -> None:
    may_load, loaded = threading.Event(), threading.Event()

    def load() -> object:
        may_load.wait(10)
        loaded.set()
        return str.split

    tokenizer = BundledTokenizer(load)  # type: ignore[arg-type]

    assert tokenizer.count(TEXT) == ROUGH.count(TEXT)
    assert not loaded.is_set()
    may_load.set()
    await tokenizer.ready()
    assert tokenizer.count("a b c") == 3


async def test_a_vocabulary_that_cannot_be_loaded_leaves_rough_counts() -> None:
    calls: list[int] = []

    def load() -> object:
        calls.append(1)
        raise OSError("disk")

    tokenizer = BundledTokenizer(load)  # type: ignore[arg-type]
    await tokenizer.ready()
    await tokenizer.ready()

    assert tokenizer.count("abcdefgh") == 2
    assert calls == [1]


def test_a_long_text_is_counted_by_its_beginning() -> None:
    class Counting:
        longest = 0

        def count(self, text: str) -> int:
            self.longest = max(self.longest, len(text))
            return len(text)

        async def ready(self) -> None: ...

    tokenizer = Counting()

    assert counted("x" * 1_000_000, tokenizer) == 1_000_000
    assert tokenizer.longest < 100_000
