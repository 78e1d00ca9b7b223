"""Places in texts, in bytes and in characters; and how much of a text its citations quote."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from llmproxy_gemini.citations import write_citations
from llmproxy_gemini.utf8_places import Utf8Places

from llmproxy_core.chat import Citation

TEXTS = st.lists(st.text(st.sampled_from("aé€👋\ud800"), max_size=9) | st.just("aé€👋" * 80))


@given(TEXTS, st.integers(-9, 999))
def test_a_place_is_the_same_however_the_text_comes(pieces: list[str], offset: int) -> None:
    places = Utf8Places()
    for piece in pieces:
        places.add(piece)

    text = "".join(pieces)
    spelt = text.encode(errors="replace")
    assert places.size == len(spelt)
    assert places.bytes(offset) == len(text[:offset].encode(errors="replace"))
    assert places.characters(abs(offset)) == len(spelt[: abs(offset)].decode(errors="ignore"))


def test_citations_of_a_whole_text_do_not_repeat_it_without_end() -> None:
    text = "é" * 1_000
    citations = [Citation("url_citation", url="http://a", start=0, end=1_000)] * 100

    written = write_citations(citations, text)

    supports = json.loads(written)["groundingSupports"]
    assert [(each["segment"]["startIndex"], each["segment"]["endIndex"]) for each in supports] == [(0, 2_000)] * 100
    assert supports[0]["segment"]["text"] == text
    assert len(written.decode()) < 20 * len(text)
