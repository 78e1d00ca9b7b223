"""What `llmproxy serve` says when it has begun to listen. Of keys only the names of their variables."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from urllib.parse import urlsplit

from llmproxy_core.config import Config
from llmproxy_core.dialect import Operation
from llmproxy_core.errors import ProxyError
from llmproxy_core.gateway import Gateway
from llmproxy_core.group_config import GroupConfig
from llmproxy_core.llm_config import HttpLLMConfig, LLMConfig
from llmproxy_core.routing import Route
from llmproxy_server.cli_llm import model_words, reached, token_names
from llmproxy_server.cli_terminal import columns, strong
from llmproxy_server.embedded import KNOWN_PROVIDERS
from llmproxy_server.loader import Loaded

QUESTION = "What is a proxy?"
_DEMO = "demo"


def banner(
    loaded: Loaded, gateway: Gateway, *, url: str, own_url: str | None, version: str, handed_down: bool = False
) -> Iterator[str]:
    """
    Lines for people. The first ends in *url*, where the server listens: scripts read the port there.

    *handed_down*: the service manager opened that port, and not the configuration.
    """
    yield strong(f"llmproxy {version} is listening on {url}", "green")
    yield ""
    yield from columns(
        [
            *_where(loaded, url, handed_down=handed_down),
            ("keys", _keys(loaded)),
            *_demo(loaded.config),
            *(("route", f"{route.name} -> {route.config.target_llm}") for route in gateway.routes),
            *([] if own_url is None else [("health", f"{url_for_a_client(own_url)}/health")]),
        ]
    )
    for warning in loaded.warnings:
        yield f"  {strong('warning:', 'yellow')} {warning}"
    yield ""
    if (command := try_it(gateway, url)) is not None:
        yield "Try it:"
        yield f"  {command}"
        yield ""
    yield "Stop it with Ctrl-C."


# -- what it serves --------------------------------------------------------------------------------------------------


def _where(loaded: Loaded, url: str, *, handed_down: bool) -> Iterator[tuple[str, str]]:
    embedded = "embedded default, since there is no --config"
    yield "configuration", embedded if loaded.path is None else str(loaded.path)
    if handed_down:
        yield "socket", "the service manager's; host and port of the configuration are not used"
    else:
        for name, value in (("host", loaded.config.server.host), ("port", urlsplit(url).port)):
            yield name, f"{value} ({loaded.settings[name].origin})"
    if (workers := loaded.settings["workers"]).value != 1:
        yield "workers", f"{workers.value} ({workers.origin})"
    level = loaded.settings["log.level"]
    yield "log level", f"{level.value} ({level.origin})"
    if (traces := loaded.settings["telemetry.traces"]).value:
        yield "traces", f"on ({traces.origin})"
    for setting in loaded.settings.tables:
        yield setting.name, f"{setting.value} ({setting.origin})"


def _keys(loaded: Loaded) -> str:
    found = [
        f"{token_names(llm)} ({name})"
        for name, llm in loaded.config.llms.items()
        if isinstance(llm, HttpLLMConfig) and llm.token is not None
    ]
    if found:
        return ", ".join(found)
    if loaded.path is not None:
        return "none is used"
    names = ", ".join(provider.variables[0] for provider in KNOWN_PROVIDERS)
    return f"none found; to reach a provider set one of {names}, here or in .env"


def _demo(config: Config) -> Iterator[tuple[str, str]]:
    for llm in config.llms.values():
        if llm.provider == _DEMO and llm.enabled:
            every = not llm.models or any(asked == "*" for asked, _ in llm.models)
            yield "demo", f"answers {'every model' if every else model_words(llm)}, without a key and without a network"


# -- a first call ----------------------------------------------------------------------------------------------------


def try_it(gateway: Gateway, url: str) -> str | None:
    """A command that gets an answer, from the demo where there is one; None when no call is known to be served."""
    routes = sorted(gateway.routes, key=lambda route: _demo_model(route, gateway) is None)
    for route in routes:
        path = _path(route, gateway, "chat/completions", "POST", Operation.CHAT)
        model = _demo_model(route, gateway) or _model(gateway.config.llms[route.config.target_llm], gateway.config)
        if path is not None and model is not None:
            return _question(url_for_a_client(url) + path, model, stream=route.config.allow_streaming)
    for route in routes:
        if (path := _path(route, gateway, "models", "GET", Operation.MODELS)) is not None:
            return f"curl -s {shlex.quote(url_for_a_client(url) + path)}"
    return None


def url_for_a_client(url: str) -> str:
    """
    *url*, where one that means every address of the machine is replaced by its own.

    >>> url_for_a_client("http://0.0.0.0:3000"), url_for_a_client("https://[::]:443")
    ('http://127.0.0.1:3000', 'https://[::1]:443')
    """
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def _question(url: str, model: str, *, stream: bool) -> str:
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": QUESTION}]}
    sign = "-N" if stream else "-s"
    return f"curl {sign} {shlex.quote(url)} -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}"


def _path(route: Route, gateway: Gateway, name: str, method: str, operation: Operation) -> str | None:
    """Where clients of OpenAI's protocol find *name* on *route*."""
    prefix = route.name.rstrip("/")
    for path in (f"{prefix}/v1/{name}", f"{prefix}/{name}"):
        try:
            match = gateway.match(method, path)
        except ProxyError:
            continue
        if match.route is route and match.operation is operation and match.dialect.name == "openai":
            return path
    return None


def _demo_model(route: Route, gateway: Gateway) -> str | None:
    """A model of *route*'s that the demo answers."""
    llms = gateway.config.llms
    for name in reached(route.config.target_llm, llms):
        if llms[name].provider == _DEMO:
            served = gateway.llms[route.config.target_llm].models.sent(_DEMO)
            return _DEMO if served is not None else _model(llms[name], gateway.config)
    return None


def _model(llm: LLMConfig, config: Config) -> str | None:
    """A name that *llm* serves, as far as the configuration tells."""
    names = [asked for asked, _ in llm.models if not set("*?[") & set(asked)]
    if names or llm.model is not None:
        return names[0] if names else llm.model
    if isinstance(llm, GroupConfig) and not llm.models:
        return next((found for member in llm.members if (found := _model(config.llms[member], config))), None)
    return None
