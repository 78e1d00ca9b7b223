"""What could mean two paths to two readers is refused; the rest is left as it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core import BadRequest
from llmproxy_core.path import begins, check_encoded_slash, check_path

PLAIN = [
    "/",
    "/v1",
    "/v1/",
    "/v1/chat/completions",
    "/v1/models/meta-llama%2FLlama-3",  # for `check_encoded_slash` to judge
    "/v1/models/ft:gpt-4o:org::id",
    "/v1/models/a@b!c$d&e'(f)*g+h,i=j~k_l.m-n",
    "/.well-known/x",
    "/...",
    "/v1/a..b/c.",
    "/v1/caf%C3%A9",
    "/v1/%20x",
    "/v1/100%25",
    "/v1/%252e%252e/x",  # decoded once it is a text with a percent sign, no dot segment
]

AMBIGUOUS = [
    "//",
    "//v1/chat/completions",
    "/v1//chat/completions",
    "/v1/chat/completions//",
    "/.",
    "/..",
    "/./v1",
    "/../v1",
    "/v1/./chat",
    "/v1/../admin",
    "/v1/chat/..",
    "/v1/chat/.",
    "/v1/%2e/chat",
    "/v1/%2E%2e/chat",
    "/v1/.%2e/chat",
    "/v1/a%2eb",
    "/v1/%5cadmin",
    "/v1/%5Cadmin",
    "/v1\\admin",
    "/v1/a;b=c",
    "/v1;/chat",
    "/v1/%00",
    "/v1/\0",
    "/v1/a b",
    "/v1/a\tb",
    "/v1/a\r\nb",
    "/v1/\x7f",
    "/v1/\x80",
    "/v1/caf\xe9",
    "/v1/\udcff",  # a byte that is no UTF-8, as parsers hand it on
    "/v1/\U0001f511",  # beyond the basic plane
    "/v1#admin",  # would end the path of an upstream's URL
    "/v1/%",
    "/v1/%4",
    "/v1/%4g",
    "/v1/%u002f",
]


@pytest.mark.parametrize("path", PLAIN)
def test_a_plain_path_passes(path: str) -> None:
    check_path(path)


@pytest.mark.parametrize("path", AMBIGUOUS)
def test_an_ambiguous_path_is_refused(path: str) -> None:
    with pytest.raises(BadRequest) as refused:
        check_path(path)

    assert refused.value.status == 400
    assert refused.value.code == "ambiguous_path"


@pytest.mark.parametrize("target", ["", "v1/chat", "*", "http://other/v1", "%2fv1"])
def test_a_target_that_is_no_path_is_refused(target: str) -> None:
    with pytest.raises(BadRequest, match="must be a path"):
        check_path(target)


@given(st.text(st.characters(), max_size=40).map(lambda text: "/" + text))
def test_whatever_passes_is_of_url_characters_and_has_no_dot_or_empty_segment(path: str) -> None:
    try:
        check_path(path)
    except BadRequest:
        return

    assert path.isascii()
    assert path.isprintable()
    assert not {".", ".."} & set(path.split("/"))
    assert "" not in path.split("/")[1:-1]


@pytest.mark.parametrize(
    "path", ["/v1/models/org%2Fname", "/v1/models/org%2fname", "/v1/org%2Fname/chat", "/%2F", "/v1/a%2Fb%2Fc"]
)
def test_an_encoded_slash_is_refused_where_the_route_does_not_allow_it(path: str) -> None:
    with pytest.raises(BadRequest, match="encoded_slash"):
        check_encoded_slash(path, allowed=False)


@pytest.mark.parametrize("path", ["/v1/models/org%2Fname", "/v1/models/org%2fname", "/v1/a%2Fb%2Fc"])
def test_an_allowed_encoded_slash_may_stand_in_the_last_segment(path: str) -> None:
    check_encoded_slash(path, allowed=True)


@pytest.mark.parametrize("path", ["/v1/org%2Fname/chat", "/%2F/x", "/v1/a%2Fb/c%2Fd", "/v1/a%2Fb/"])
def test_an_allowed_encoded_slash_may_stand_nowhere_else(path: str) -> None:
    with pytest.raises(BadRequest, match="last segment") as refused:
        check_encoded_slash(path, allowed=True)

    assert refused.value.code == "ambiguous_path"


@pytest.mark.parametrize("allowed", [True, False])
def test_a_path_without_an_encoded_slash_passes(allowed: bool) -> None:
    check_encoded_slash("/v1/models/name%2D", allowed=allowed)


@pytest.mark.parametrize(
    ("path", "prefix", "expected"),
    [
        ("/v1", "/v1", True),
        ("/v1/chat", "/v1", True),
        ("/v1/", "/v1", True),
        ("/v10", "/v1", False),
        ("/v1beta/x", "/v1", False),
        ("/V1/chat", "/v1", False),
        ("/v", "/v1", False),
        ("/anything", "/", True),
        ("/", "/", True),
    ],
)
def test_a_path_begins_with_whole_segments(path: str, prefix: str, expected: bool) -> None:
    assert begins(path, prefix) is expected
