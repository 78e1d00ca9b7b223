"""The table of clients and providers: a difference is seen, and who says nothing gets a route that says it."""

from __future__ import annotations

from tests.clients.cast import ANYTHING, NODE_CLIENTS, PROVIDERS, differences


def test_what_differs_is_said() -> None:
    seen = {"text": "a", "error": {"status": 400}, "tokens": 0}

    assert not differences(seen, {"text": "a", "error": {"status": 400}})
    assert not differences(seen, {"error": ANYTHING})
    assert differences(seen, {"text": "b"}) == ["text is 'a', not 'b'"]
    assert differences(seen, {"error": {"status": 502}}) == ["status is 400, not 502"]
    assert differences(seen, {"tokens": ANYTHING}) == ["tokens is 0"]
    assert differences(seen, {"calls": []}) == ["no calls"]


def test_only_a_client_that_does_not_say_what_it_speaks_needs_a_route_that_says_it() -> None:
    told = {
        (name, provider)
        for name, role in NODE_CLIENTS.items()
        for provider, behind in PROVIDERS.items()
        if role.route(behind) != provider
    }

    others = {("ai-mistral", provider) for provider in PROVIDERS if provider != "mistral"}
    assert told == {("ai-openai-chat", "mistral")} | others
