"""The keys that say how an LLM is reached."""

from typing import Any

import pytest

from llmproxy_core.config import structure
from llmproxy_core.errors import ConfigError
from llmproxy_core.llm_config import read_proxy
from llmproxy_core.secret import Secret
from tests.registry import registry

PASSWORD = "pass-do-not-tell"


@pytest.mark.parametrize(
    "written",
    [
        "http://proxy.test:3128",
        "https://proxy.test",
        "http://10.0.0.1:3128/",
        "http://[::1]:3128",
        "socks4://proxy.test:1080",
        "socks5://proxy.test:1080",
        "socks5h://proxy.test:1080",
        "none",
    ],
)
def test_a_proxy_is_a_url_or_none(written: str) -> None:
    assert read_proxy(written) == read_proxy(Secret(written)) == Secret(written)


def test_a_proxy_with_a_password_stands_in_the_environment() -> None:
    url = f"http://user:{PASSWORD}@proxy.test:3128"

    assert read_proxy(Secret(url)) == Secret(url)
    with pytest.raises(ValueError, match="a password does not belong into the file") as caught:
        read_proxy(url)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "proxy.test:3128",
        "ftp://proxy.test",
        "http://",
        "http://proxy.test:0",
        "http://proxy.test:x",
        "http://proxy.test:3128/path",
        "http://proxy.test:3128?a=b",
        "http://proxy.test:3128#a",
        "http://a b:1",
        "http://proxy.test\r\nx: y",
        "http://pröxy.test",
        "http://[",
    ],
)
def test_what_is_no_proxy_is_refused_and_not_repeated(written: str) -> None:
    forms: list[str | Secret] = [written, Secret(written or " ")]
    for each in forms:
        with pytest.raises(ValueError, match="expected") as caught:
            read_proxy(each)
        assert len(written) < 8 or written not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "path", "message"),
    [
        ({"transport": "wire", "proxy": "http://p.test"}, "llm.a.transport", '"wire" has no proxy'),
        ({"transport": "wire", "unix_socket": "/s"}, "llm.a.transport", '"wire" has no unix_socket'),
        ({"proxy": "http://p.test", "unix_socket": "/s"}, "llm.a.unix_socket", "no proxy leads to a Unix socket"),
        ({"unix_socket": "/s", "base_url": "https://a.test"}, "llm.a.base_url", "expected http"),
        ({"unix_socket": "run/s"}, "llm.a.unix_socket", "absolute path"),
        ({"transport": "curl"}, "llm.a.transport", 'expected one of "wire", "aiohttp"'),
        ({"proxy": {"env": "MISSING"}}, "llm.a.proxy", "is not set"),
    ],
)
def test_keys_that_do_not_go_together_are_problems(keys: dict[str, object], path: str, message: str) -> None:
    table = {"provider": "openai", "base_url": "http://a.test/v1", **keys}
    document: dict[str, Any] = {"llm": {"a": table}, "route": [{"path_prefix": "/", "target_llm": "a"}]}

    with pytest.raises(ConfigError) as caught:
        structure(document, registry(), {})

    assert [problem.path for problem in caught.value.problems] == [path]
    assert message in caught.value.problems[0].message
