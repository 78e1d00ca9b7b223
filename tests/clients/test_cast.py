"""The table of clients and providers: what is not played yet is known, and a difference is seen."""

from __future__ import annotations

from tests.clients.cast import ANYTHING, NODE_CLIENTS, PROVIDERS, PYTHON_CLIENTS, differences
from tests.clients.stage import LIT, speaks

AWAITED = frozenset({"openai-responses", "gemini"})
"""Dialects that are not written yet: their cells are not played. Take a dialect out once it is there."""


def test_no_cell_is_left_out_unnoticed() -> None:
    roles = {**PYTHON_CLIENTS, **NODE_CLIENTS}.values()

    assert {role.dialect for role in roles if not speaks(role)} == AWAITED
    assert {provider.dialect for name, provider in PROVIDERS.items() if name not in LIT} == AWAITED


def test_what_differs_is_said() -> None:
    seen = {"text": "a", "error": {"status": 400}, "tokens": 0}

    assert not differences(seen, {"text": "a", "error": {"status": 400}})
    assert not differences(seen, {"error": ANYTHING})
    assert differences(seen, {"text": "b"}) == ["text is 'a', not 'b'"]
    assert differences(seen, {"error": {"status": 502}}) == ["status is 400, not 502"]
    assert differences(seen, {"tokens": ANYTHING}) == ["tokens is 0"]
    assert differences(seen, {"calls": []}) == ["no calls"]
