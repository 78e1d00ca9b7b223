"""The public names of llmproxy_core change only on purpose: with this list, and a line in CHANGELOG.md."""

from __future__ import annotations

from pathlib import Path

import llmproxy_core

SNAPSHOT = Path(__file__).with_name("public_api.txt")


def test_the_public_names_are_those_of_the_snapshot_in_its_order() -> None:
    assert llmproxy_core.__all__ == SNAPSHOT.read_text(encoding="utf-8").split()


def test_every_public_name_exists_once() -> None:
    assert len(set(llmproxy_core.__all__)) == len(llmproxy_core.__all__)
    for name in llmproxy_core.__all__:
        assert getattr(llmproxy_core, name) is not None


def test_every_public_class_says_what_it_is() -> None:
    aliases = {"Handler", "Response", "hookimpl", "option"}

    undocumented = [
        name for name in llmproxy_core.__all__ if name not in aliases and not getattr(llmproxy_core, name).__doc__
    ]

    assert undocumented == []
