"""From method and path to a route, an operation and the function that serves it."""

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from llmproxy_core import (
    BadRequest,
    Dialect,
    Exchange,
    LLMClient,
    MethodNotAllowed,
    ModelMap,
    ModelPrice,
    Operation,
    Response,
    RouteNotFound,
)
from llmproxy_core.config import RouteConfig
from llmproxy_core.routing import Match, Route, RouteIndex
from llmproxy_openai import OpenAIDialect
from tests.llmproxy_core.path_model_dialect import PathModelDialect

KNOWN = (Operation.CHAT, Operation.EMBEDDINGS, Operation.MODELS)
OPENAI, PATHY = OpenAIDialect(), PathModelDialect()


class NobodyLLM:
    """An LLM that is never called."""

    models = ModelMap()

    async def send(self, exchange: Exchange) -> Response:
        raise AssertionError("routing calls nobody")

    async def prices(self, model: str | None) -> Sequence[ModelPrice | None]:
        raise AssertionError("routing asks for no price")

    async def aclose(self) -> None: ...


async def _handler(exchange: Exchange) -> Response:
    raise AssertionError("routing calls nobody")


def _route(
    prefix: str, operations: Iterable[Operation] = KNOWN, *, dialects: Sequence[Dialect] = (OPENAI,), **config: Any
) -> Route:
    llm: LLMClient = NobodyLLM()
    served = dict.fromkeys(operations, _handler)
    return Route(RouteConfig(path_prefix=prefix, target_llm="x", **config), llm, dialects, served, {})


def _match(path: str, *routes: Route, method: str = "POST") -> Match:
    return RouteIndex(routes).match(method, path)


# -- the route -------------------------------------------------------------------------------------------------------

PREFIXES = ["/", "/v1", "/v1/team", "/v1/team/a", "/V1", "/openai/v1", "/v1x"]


@pytest.mark.parametrize(
    ("path", "prefix"),
    [
        ("/v1", "/v1"),
        ("/v1/", "/v1"),
        ("/v1/chat/completions", "/v1"),
        ("/v1/team", "/v1/team"),
        ("/v1/team/chat/completions", "/v1/team"),
        ("/v1/team/a/chat/completions", "/v1/team/a"),
        ("/v1/team/ab/chat/completions", "/v1/team"),  # whole segments only
        ("/v1/teams/chat/completions", "/v1"),
        ("/v1x/chat/completions", "/v1x"),
        ("/v1xy/chat/completions", "/"),
        ("/V1/chat/completions", "/V1"),  # paths are case-sensitive
        ("/v1/Team/chat/completions", "/v1"),
        ("/v1/te%61m/chat/completions", "/v1"),  # and raw
        ("/openai/v1/chat/completions", "/openai/v1"),
        ("/openai/chat/completions", "/"),
        ("/", "/"),
        ("/anything/at/all", "/"),
    ],
)
def test_the_longest_prefix_on_whole_segments_wins(path: str, prefix: str) -> None:
    for order in (PREFIXES, PREFIXES[::-1]):
        index = RouteIndex(_route(it) for it in order)

        assert index.route(path).name == prefix


@pytest.mark.parametrize("path", ["/", "/v2/chat/completions", "/v", "/v1x", "/chat/completions"])
def test_a_path_below_no_prefix_has_no_route(path: str) -> None:
    with pytest.raises(RouteNotFound, match="No route serves this path"):
        _match(path, _route("/v1"))


def test_there_may_be_no_route_at_all() -> None:
    with pytest.raises(RouteNotFound):
        _match("/v1/chat/completions")


class Counting(dict[str, Route]):
    """Counts look-ups."""

    looked = 0

    def get(self, key: str, default: Any = None) -> Any:
        self.looked += 1
        return super().get(key, default)

    def __iter__(self) -> Any:
        raise AssertionError("nobody goes through the routes")


@pytest.mark.parametrize("path", ["/a/b/c/d/chat/completions", "/v1/chat/completions", "/r500/v1/chat/completions"])
def test_the_cost_of_a_look_up_is_that_of_the_paths_segments(path: str) -> None:
    counts = []
    for many in (1, 1000):
        index = RouteIndex([_route("/"), *(_route(f"/x{number}/v1") for number in range(many))])
        index._by_prefix = counting = Counting(index._by_prefix)
        index.route(path)
        counts.append(counting.looked)

    assert counts[0] == counts[1] <= path.count("/") + 1


# -- the operation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "method", "path", "api"),
    [
        ("/v1", "POST", "/v1/chat/completions", "openai.chat"),
        ("/v1", "POST", "/v1/completions", "openai.completions"),
        ("/v1", "POST", "/v1/embeddings", "openai.embeddings"),
        ("/v1", "GET", "/v1/models", "openai.models"),
        ("/v1", "GET", "/v1/models/gpt-4o", "openai.model"),
        ("/", "POST", "/v1/chat/completions", "openai.chat"),
        ("/", "POST", "/chat/completions", "openai.chat"),  # also without the version
        ("/openai", "POST", "/openai/v1/chat/completions", "openai.chat"),
        ("/openai", "POST", "/openai/chat/completions", "openai.chat"),
        ("/openai/v1", "POST", "/openai/v1/chat/completions", "openai.chat"),
        ("/v1/team", "POST", "/v1/team/chat/completions", "openai.chat"),
        ("/v1/chat", "POST", "/v1/chat/completions", "openai.chat"),  # the prefix may be a part of the API's path
        ("/v1/chat/completions", "POST", "/v1/chat/completions", "openai.chat"),
    ],
)
def test_method_and_path_tell_the_operation(prefix: str, method: str, path: str, api: str) -> None:
    match = _match(path, _route(prefix), method=method)

    assert match.api is not None
    assert match.api.name == api
    assert (match.operation, match.route.name, match.dialect) == (match.api.operation, prefix, OPENAI)
    assert match.relative_path == ""


@pytest.mark.parametrize(
    ("prefix", "path"),
    [
        ("/v1", "/v1/x/chat/completions"),
        ("/", "/x/chat/completions"),
        ("/", "/x/v1/chat/completions"),
        ("/openai", "/openai/v2/chat/completions"),
        ("/v1", "/v1/chat/completions/"),
        ("/v1", "/v1/Chat/Completions"),
        ("/v1", "/v1/chat/completions.json"),
        ("/v1", "/v1"),
        ("/v1", "/v1/nothing"),
    ],
)
def test_between_prefix_and_operation_nothing_may_stand(prefix: str, path: str) -> None:
    with pytest.raises(RouteNotFound) as refused:
        _match(path, _route(prefix))

    assert "POST …/chat/completions" in refused.value.message  # what it does serve


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/models/gpt-4o", "gpt-4o"),
        ("/v1/models/org/name", "org/name"),
        ("/v1/models/ft:gpt-4o:org::id", "ft:gpt-4o:org::id"),
        ("/v1/models/a%20b", "a b"),
        ("/v1/models/a%2520b", "a%20b"),  # decoded once, not twice
    ],
)
def test_a_model_in_the_path_is_decoded_once(path: str, model: str) -> None:
    assert _match(path, _route("/v1"), method="GET").path_model == model


def test_an_encoded_slash_is_part_of_a_models_name_where_the_route_allows_it() -> None:
    match = _match("/v1/models/org%2Fname", _route("/v1", encoded_slash=True), method="GET")

    assert match.path_model == "org/name"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/v1/models/org%2Fname", False), ("/v1/models/a%2Fb/c", True), ("/v1%2Fmodels/x", True)],
)
def test_an_encoded_slash_elsewhere_is_refused(path: str, allowed: bool) -> None:
    routes = [_route("/v1", encoded_slash=allowed), _route("/", encoded_slash=allowed)]

    with pytest.raises(BadRequest, match="encoded slash"):
        _match(path, *routes, method="GET")


@pytest.mark.parametrize(
    "path",
    ["//v1/chat/completions", "/v1//chat/completions", "/v1/../v1/chat/completions", "/v1/%2e%2e/x", "/v1/a;b", "v1"],
)
def test_an_ambiguous_path_is_refused_before_any_route_is_looked_for(path: str) -> None:
    with pytest.raises(BadRequest) as refused:
        _match(path)

    assert refused.value.code == "ambiguous_path"


# -- what is not served ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", ("POST",)),
        ("DELETE", "/v1/models/x", ("GET",)),
        ("POST", "/v1/models", ("GET",)),
        ("post", "/v1/chat/completions", ("POST",)),
    ],
)
def test_another_method_is_refused_with_those_that_are_taken(method: str, path: str, allowed: tuple[str, ...]) -> None:
    with pytest.raises(MethodNotAllowed) as refused:
        _match(path, _route("/v1"), method=method)

    assert refused.value.allowed == allowed
    assert " or ".join(allowed) in refused.value.message


def test_an_operation_that_the_route_leaves_out_is_not_found() -> None:
    with pytest.raises(RouteNotFound, match="does not serve that operation"):
        _match("/v1/embeddings", _route("/v1", [Operation.CHAT]))


@pytest.mark.parametrize(
    ("prefix", "path"),
    [
        ("/v1", "/v1/v1/chat/completions"),
        ("/v1", "/v1/v1/models"),
        ("/", "/v1/v1/chat/completions"),
        ("/openai", "/openai/v1/v1/chat/completions"),
        ("/openai/v1", "/openai/v1/v1/embeddings"),
    ],
)
def test_a_doubled_version_is_not_found_and_says_why(prefix: str, path: str) -> None:
    """The most frequent mistake with a base URL."""
    with pytest.raises(RouteNotFound, match="/v1 twice"):
        _match(path, _route(prefix))


# -- opaque ----------------------------------------------------------------------------------------------------------

WITH_OPAQUE = (*KNOWN, Operation.OPAQUE)


@pytest.mark.parametrize(
    ("config", "path", "relative"),
    [
        ({"path_prefix": "/v1"}, "/v1/files", "/files"),
        ({"path_prefix": "/v1"}, "/v1", ""),
        ({"path_prefix": "/openai"}, "/openai/v1/files/x%20y", "/files/x%20y"),
        ({"path_prefix": "/openai/v1"}, "/openai/v1/audio/speech", "/audio/speech"),
        ({"path_prefix": "/openai"}, "/openai/files", "/files"),  # without a version: what follows the prefix
        ({"path_prefix": "/"}, "/files", "/files"),
        ({"path_prefix": "/"}, "/v1/files", "/files"),
        ({"path_prefix": "/"}, "/files/v1/x", "/files/v1/x"),  # not every "v1" is the protocol's
        ({"path_prefix": "/openai"}, "/openai/files/v1/x", "/files/v1/x"),
        ({"path_prefix": "/v1beta"}, "/v1beta/files", "/files"),  # another version is another segment
        ({"path_prefix": "/up", "strip_prefix": "/up"}, "/up/v1/files", "/v1/files"),
        ({"path_prefix": "/up/v1", "strip_prefix": "/up"}, "/up/v1/files", "/v1/files"),
        ({"path_prefix": "/up", "strip_prefix": "/"}, "/up/v1/files", "/up/v1/files"),
        ({"path_prefix": "/up", "strip_prefix": "/up/v1"}, "/up/v1/files", "/files"),
    ],
)
def test_an_opaque_path_is_what_follows(config: dict[str, Any], path: str, relative: str) -> None:
    prefix = config.pop("path_prefix")

    match = _match(path, _route(prefix, WITH_OPAQUE, **config), method="DELETE")

    assert (match.operation, match.api, match.path_model) == (Operation.OPAQUE, None, None)
    assert match.relative_path == relative


@pytest.mark.parametrize("path", ["/up/other/files", "/up/v1x/files", "/up"])
def test_what_is_not_there_is_not_stripped(path: str) -> None:
    """A longer strip_prefix than the route's must not cut a path in the middle of a segment."""
    match = _match(path, _route("/up", WITH_OPAQUE, strip_prefix="/up/v1"))

    assert match.relative_path == path.removeprefix("/up")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/files"), ("DELETE", "/v1/chat/completions"), ("POST", "/v1/models")]
)
def test_opaque_is_served_only_where_it_is_listed(method: str, path: str) -> None:
    with pytest.raises((RouteNotFound, MethodNotAllowed)):
        _match(path, _route("/v1"), method=method)

    assert _match(path, _route("/v1", WITH_OPAQUE), method=method).operation is Operation.OPAQUE


def test_a_known_operation_is_not_opaque_even_where_opaque_is_listed() -> None:
    assert _match("/v1/chat/completions", _route("/v1", WITH_OPAQUE)).operation is Operation.CHAT


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions/",
        "/v1/Chat/Completions",
        "/v1/chat/co%6Dpletions",
        "/v1/EMBEDDINGS",
        "/v1/chat%2Fcompletions",
    ],
)
def test_an_operation_in_disguise_is_not_forwarded_as_opaque(path: str) -> None:
    """The upstream might take it for the operation, past the processors that act on it."""
    with pytest.raises(BadRequest) as refused:
        _match(path, _route("/v1", WITH_OPAQUE, encoded_slash=True))

    assert refused.value.code == "ambiguous_path"


def test_what_only_looks_like_an_operation_is_forwarded() -> None:
    route = _route("/v1", WITH_OPAQUE)

    assert _match("/v1/files/chat/completions/", route).relative_path == "/files/chat/completions/"
    assert _match("/v1/Models", route, method="GET").relative_path == "/Models"  # a list calls no model
    assert _match("/v1/Chat/Completions", route, method="GET").operation is Operation.OPAQUE


@pytest.mark.parametrize("path", ["/v1/v1/files", "/v1/v1"])
def test_a_doubled_version_is_not_forwarded_as_opaque(path: str) -> None:
    with pytest.raises(RouteNotFound, match="/v1 twice"):
        _match(path, _route("/v1", WITH_OPAQUE))


def test_opaque_is_not_blind_to_ambiguous_paths() -> None:
    with pytest.raises(BadRequest):
        _match("/v1/../admin", _route("/v1", WITH_OPAQUE))


# -- several dialects ------------------------------------------------------------------------------------------------


def test_the_path_tells_which_dialect_is_spoken() -> None:
    route = _route("/v1", WITH_OPAQUE, dialects=(OPENAI, PATHY))

    chat = _match("/v1/chat/completions", route)
    generate = _match("/v1/models/m:generate", route)
    opaque = _match("/v1/files", route)

    assert (chat.dialect, generate.dialect, opaque.dialect) == (OPENAI, PATHY, OPENAI)
    assert (generate.operation, generate.path_model) == (Operation.CHAT, "m")


def test_two_methods_of_one_path_are_told_apart() -> None:
    """`GET /v1/models/m:generate` asks one dialect for an entry of its list, POST another for an answer."""
    route = _route("/v1", dialects=(OPENAI, PATHY))

    assert _match("/v1/models/m:generate", route, method="GET").dialect is OPENAI
    with pytest.raises(MethodNotAllowed) as refused:
        _match("/v1/models/m:generate", route, method="PUT")
    assert refused.value.allowed == ("GET", "POST")


# -- memory ----------------------------------------------------------------------------------------------------------


def test_a_match_is_remembered() -> None:
    index = RouteIndex([_route("/v1")])

    assert index.match("POST", "/v1/embeddings") is index.match("POST", "/v1/embeddings")
    assert index.match("GET", "/v1/models") is not index.match("POST", "/v1/embeddings")


def test_the_memory_of_callers_paths_is_bounded_and_keeps_no_refusals() -> None:
    index = RouteIndex([_route("/v1")])

    for number in range(10_000):
        index.match("GET", f"/v1/models/m{number}")
    remembered = len(index._memory)
    for number in range(100):
        with pytest.raises(RouteNotFound):
            index.match("GET", f"/v2/{number}")

    assert remembered <= 4096
    assert len(index._memory) == remembered
    assert index.match("GET", "/v1/models/m0").path_model == "m0"
