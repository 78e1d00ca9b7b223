"""What is kept of the beginning of a stream."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core.wire.mould import Mould
from llmproxy_core.wire.sample import SAMPLE_BYTES, Sample

TEXTS = st.text(st.characters(exclude_characters='"\\\r\n', exclude_categories=["Cs"]), max_size=300)


def event(text: str, member: str = "t") -> bytes:
    return b'data: {"%b":"%b"}\n\n' % (member.encode(), text.encode())


def mould(member: str) -> Mould:
    example = event("w", member)
    start = example.index(b'"w"') + 1
    made = Mould.of(example, (start, start + 1))
    assert made is not None
    return made


@given(st.lists(st.tuples(TEXTS, st.sampled_from("ab"), st.booleans()), max_size=200))
def test_the_beginning_is_kept_as_it_was_whatever_fits_a_mould(events: list[tuple[str, str, bool]]) -> None:
    moulds = {"a": mould("a"), "b": mould("b")}
    sample, stream = Sample(), b""
    for text, member, has_mould in events:
        block = event(text, member)
        stream += block
        if sample.left > 0:
            sample.add(block, moulds[member] if has_mould and moulds[member].fits(block) else None)

    assert sample.data == stream[:SAMPLE_BYTES]


@given(st.lists(st.tuples(TEXTS, st.sampled_from("ab")), max_size=200))
def test_what_passes_in_its_chunk_is_kept_as_what_is_fed(events: list[tuple[str, str]]) -> None:
    moulds = {"a": mould("a"), "b": mould("b")}
    passing, fed = Sample(), Sample()
    member, knows = "a", passing.watched(moulds["a"])
    passed_bytes = 0
    for text, kind in events:
        block = event(text, kind)
        line = b"%x\r\n" % len(block)
        if fed.left > 0:
            fed.add(block, moulds[kind] if moulds[kind].fits(block) else None)
        if member == kind and knows(line + block + b"\r\n", line):
            passed_bytes += len(block)
            continue
        if passing.left > 0:
            passing.add(block, moulds[kind] if moulds[kind].fits(block) else None)
        member, knows = kind, passing.watched(moulds[kind])

    assert passing.data == fed.data
    assert (passing.left > 0) == (fed.left > 0)
    if all(kind == "a" for _, kind in events):
        assert passed_bytes >= sum(len(event(text, kind)) for text, kind in events) - 2 * len(event("x" * 1200, "a"))


def test_of_events_that_fit_a_mould_only_their_texts_take_room() -> None:
    sample, one = Sample(), mould("a" * 300)
    while sample.left > 0:
        sample.add(event("word", "a" * 300), one)

    (kept_by, same), (nothing, cut) = sample._parts
    assert (kept_by, same) == (one, [b"word"] * 12)
    assert (nothing, len(cut)) == (None, 1)


def test_where_nothing_passes_no_room_is_taken_for_it() -> None:
    sample, one = Sample(), mould("a")
    for _ in range(100):
        sample.add(b":\n\n")
        sample.watched(one)

    assert [(by, len(kept)) for by, kept in sample._parts] == [(None, 100), (one, 0)]
    assert sample.data == b":\n\n" * 100


def test_nothing_is_kept_beyond_the_beginning() -> None:
    sample = Sample()

    sample.add(event("x" * 10_000))

    assert sample.left <= 0
    assert sample.data == event("x" * 10_000)[:SAMPLE_BYTES]
