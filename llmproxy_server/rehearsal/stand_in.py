"""The configuration as it is rehearsed: no key of the operator's, no address but loopback."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs

from llmproxy_core.config import Config, LogConfig, TelemetryConfig
from llmproxy_core.llm_config import HttpLLMConfig
from llmproxy_core.plugins import Registry
from llmproxy_server.loader import Loaded, parse
from llmproxy_server.rehearsal.provider import HOST
from llmproxy_server.source import Snapshot

_PROXIED = frozenset({"ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"})


def stand_in(variable: str) -> str:
    """
    What stands for the key in the environment's *variable*.

    >>> stand_in("OPENAI_API_KEY")
    'stand-in-for-OPENAI_API_KEY'
    """
    return f"stand-in-for-{variable}"


def load(snapshot: Snapshot, registry: Registry) -> Loaded:
    """
    The configuration of *snapshot* with stand-ins for all keys of its LLMs, whether they are set or not.

    Secrets of other tables (a store's URL) are taken as they are where they are set. ConfigError as when it is served,
    but for the files of its certificate, which may be elsewhere: a rehearsal speaks no TLS.
    """
    document = parse(snapshot.text) if snapshot.text is not None else {}
    llms = document.get("llm")
    of_llms = set(_variables(llms))
    env = {name: value for name, value in snapshot.env.items() if name.upper() not in _PROXIED}
    for name in _variables(document):
        if name in of_llms or not env.get(name, "").strip():
            env[name] = stand_in(name)
    for name in _proxies(llms):
        env[name] = "none"
    return attrs.evolve(snapshot, env=env).load(registry, certificate=False)


def rehearsed(config: Config) -> Config:
    """*config* for a server of one process on a free port of loopback, which logs and exports nothing."""
    server = attrs.evolve(
        config.server,
        host=HOST,
        port=0,
        tls_certificate=None,
        tls_key=None,
        own_endpoints=False,
        workers=1,
        watch=False,
        recent_requests=0,
        adaptive_limit=False,  # it looks at how late the loop is, which is no matter here
        log=LogConfig(level="error"),
        debug=False,
    )
    return attrs.evolve(config, server=server, telemetry=TelemetryConfig())


def refused_key(llm: HttpLLMConfig) -> str | None:
    """The stand-in that a provider comes to refuse: that of the first of the keys. None where there is none."""
    names = (llm.token_env,) if isinstance(llm.token_env, str) else llm.token_env or ()
    return stand_in(names[0]) if names else None


def _variables(value: object, key: str = "") -> Iterator[str]:
    """The variables that *value*, of TOML, takes secrets from."""
    if isinstance(value, Mapping):
        name = value.get("env")
        if len(value) == 1 and isinstance(name, str):
            yield name
        for inner, each in value.items():
            yield from _variables(each, str(inner))
    elif isinstance(value, list):
        for each in value:
            yield from _variables(each, key)
    elif isinstance(value, str) and key == "token_env":
        yield value


def _proxies(llms: object) -> Iterator[str]:
    """Those that hold the URL of a proxy: a stand-in is none."""
    for llm in llms.values() if isinstance(llms, Mapping) else ():
        if isinstance(llm, Mapping):
            yield from _variables(llm.get("proxy"))
