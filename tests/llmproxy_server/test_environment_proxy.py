"""The proxy that the environment names for an LLM."""

from collections.abc import Mapping
from typing import Any

import pytest

from llmproxy_core.config import structure
from llmproxy_core.llm_config import HttpLLMConfig
from llmproxy_core.secret import Secret
from llmproxy_server.environment import overlay
from llmproxy_server.environment_proxy import proxy_variable
from tests.registry import registry

PROXY = "http://user:pass-do-not-tell@proxy.test:3128"


@pytest.mark.parametrize(
    ("url", "env", "expected"),
    [
        ("https://api.test/v1", {}, None),
        ("https://api.test/v1", {"HTTPS_PROXY": "x"}, "HTTPS_PROXY"),
        ("https://api.test/v1", {"https_proxy": "x", "HTTPS_PROXY": "y"}, "https_proxy"),
        ("https://api.test/v1", {"https_proxy": " ", "HTTPS_PROXY": "y"}, "HTTPS_PROXY"),
        ("https://api.test/v1", {"HTTP_PROXY": "x"}, None),
        ("http://api.test/v1", {"HTTP_PROXY": "x"}, "HTTP_PROXY"),
        ("HTTPS://api.test/v1", {"HTTPS_PROXY": "x"}, "HTTPS_PROXY"),
        ("http://127.0.0.1:11434", {"HTTP_PROXY": "x"}, None),
        ("http://[::1]:11434", {"HTTP_PROXY": "x"}, None),
        ("http://localhost:11434", {"HTTP_PROXY": "x"}, None),
        ("http://[", {"HTTP_PROXY": "x"}, None),
        ("ftp://api.test", {"HTTP_PROXY": "x"}, None),
    ],
)
def test_the_variable_of_a_url(url: str, env: Mapping[str, str], expected: str | None) -> None:
    assert proxy_variable(url, env) == expected


@pytest.mark.parametrize(
    ("url", "excepted", "direct"),
    [
        ("https://api.test", "*", True),
        ("https://api.test", "other.test, api.test", True),
        ("https://api.test", "API.TEST", True),
        ("https://api.test", "test", True),
        ("https://api.test", ".test", True),
        ("https://api.test", "*.test", True),
        ("https://api.test", "pi.test", False),
        ("https://api.test", "api.test:443", True),
        ("https://api.test", "api.test:8443", False),
        ("https://api.test:8443", "api.test:8443", True),
        ("https://api.test", "", False),
        ("https://api.test", " , ", False),
        ("https://10.1.2.3", "10.0.0.0/8", True),
        ("https://10.1.2.3", "10.1.2.3", True),
        ("https://10.1.2.3", "11.0.0.0/8", False),
        ("https://10.1.2.3", "2.3", False),
        ("https://[fd00::1]", "fd00::/8", True),
        ("https://[fd00::1]", "[fd00::1]:443", True),
        ("https://[fd00::1]", "[fd00::1]:80", False),
    ],
)
def test_hosts_in_no_proxy_are_called_directly(url: str, excepted: str, direct: bool) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        assert (proxy_variable(url, {"HTTPS_PROXY": "x", name: excepted}) is None) is direct


def llm(env: Mapping[str, str], **keys: object) -> HttpLLMConfig:
    table = {"provider": "openai", "base_url": "https://api.test/v1", **keys}
    document: dict[str, Any] = {"llm": {"a": table}, "route": [{"path_prefix": "/", "target_llm": "a"}]}
    found = overlay(document, registry(), env, {})
    config, _ = structure(found.document, registry(), env)
    configured = config.llms["a"]
    assert isinstance(configured, HttpLLMConfig)
    assert PROXY not in repr((found.origins, found.table_keys, config))
    return configured


def test_an_llm_has_the_environments_proxy_where_it_names_none() -> None:
    assert llm({"HTTPS_PROXY": PROXY}).connections.proxy == Secret(PROXY)


@pytest.mark.parametrize(
    "keys",
    [{"proxy": "none"}, {"transport": "wire"}, {"base_url": "http://127.0.0.1:1/v1"}],
    ids=["proxy", "transport", "this machine"],
)
def test_an_llm_may_do_without_the_environments_proxy(keys: dict[str, object]) -> None:
    assert llm({"HTTPS_PROXY": PROXY, "HTTP_PROXY": PROXY}, **keys).connections.proxy is None


def test_an_llm_on_a_unix_socket_has_no_proxy() -> None:
    pool = llm({"HTTP_PROXY": PROXY}, base_url="http://api.test/v1", unix_socket="/run/s").connections

    assert (pool.proxy, pool.unix_socket) == (None, "/run/s")


def test_what_an_llm_names_itself_is_stronger() -> None:
    env = {"HTTPS_PROXY": "http://other.test:1", "MINE": PROXY}

    assert llm(env, proxy={"env": "MINE"}).connections.proxy == Secret(PROXY)
    assert llm(env, proxy="socks5h://mine.test:1080").connections.proxy == Secret("socks5h://mine.test:1080")
