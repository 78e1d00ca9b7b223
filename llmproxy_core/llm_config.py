"""The configuration of an LLM: what all have, and what those reached over HTTP have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal
from urllib.parse import urlsplit

import attrs

from llmproxy_core.config_path import masked
from llmproxy_core.dialect import Prefill
from llmproxy_core.llm import Timeouts
from llmproxy_core.option import (
    Check,
    Misread,
    Misreadings,
    WrittenAs,
    between,
    byte_size,
    count,
    is_host,
    matches,
    option,
    plain_text,
    seconds,
    some_seconds,
)
from llmproxy_core.price_config import Prices
from llmproxy_core.resilience.backoff import Retries
from llmproxy_core.resilience.breaker import BreakerConfig
from llmproxy_core.resilience.commit import FIRST_TOKEN, CommitPoint
from llmproxy_core.resilience.probe import ProbeConfig
from llmproxy_core.secret import Secret
from llmproxy_core.services import Pool

# -- the forms in which values are written ---------------------------------------------------------------------------


def read_models(written: tuple[str, ...] | Mapping[str, str]) -> tuple[tuple[str, str | None], ...]:
    """Pairs (asked, sent) in the order written; a list sends what was asked (None)."""
    pairs: list[tuple[str, str | None]] = []
    if isinstance(written, Mapping):
        pairs.extend(written.items())
    else:
        pairs.extend((name, None) for name in written)
    if not pairs:
        raise ValueError("expected at least one model; leave the key out for any")
    seen = set[str]()
    found: list[Misread] = []
    for index, (asked, sent) in enumerate(pairs):
        if mistake := _model_mistake(asked, sent, seen):
            found.append(Misread(mistake, asked if isinstance(written, Mapping) else index))
        seen.add(asked)
    Misreadings.refuse(found)
    return tuple(pairs)


def _model_mistake(asked: str, sent: str | None, seen: set[str]) -> str | None:
    """What is wrong with one entry, after those *seen*."""
    if any(name is not None and not (name and name.isprintable()) for name in (asked, sent)):
        return "expected a model's name, without control characters"
    if sent is not None and any(sign in sent for sign in "*?["):
        return "expected one model's name; a wildcard may stand only on the left, in what is asked"
    if asked in seen:
        return "expected each name once"
    return None


Models = Annotated[tuple[tuple[str, str | None], ...], WrittenAs(tuple[str, ...] | Mapping[str, str], read_models)]


_NETLOC = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*)(:[0-9]*)?")


_OPERATIONS = ("/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses", "/v1/embeddings")


def read_base_url(written: str) -> str:
    """A checked base URL without its last slash."""
    expected = 'expected a URL such as "https://api.example.com/v1"'
    try:
        url = urlsplit(written)
        host, number = url.hostname, url.port
    except ValueError as error:
        raise ValueError(expected) from error
    if not written.isascii() or not written.isprintable() or " " in written or "\\" in written:
        raise ValueError(f"{expected}, of ASCII characters without spaces")
    if url.scheme not in ("http", "https") or not host or number == 0:
        raise ValueError(f"{expected}, with http or https and a host")
    if "@" in url.netloc:
        raise ValueError(f"{expected}, without a user or password; a key goes into an environment variable (token_env)")
    if not is_host(host) or not _NETLOC.fullmatch(url.netloc):  # urlsplit takes "[::1]x" and "a..b"
        raise ValueError(f"{expected}, with a host name or an IP address")
    if "?" in written or "#" in written:
        raise ValueError(f"{expected}, without a query or fragment")
    if url.path.rstrip("/").endswith(_OPERATIONS):
        raise ValueError(f"{expected}, without the path of an operation, which is put behind it")
    return written.rstrip("/")


BaseUrl = Annotated[str, WrittenAs(str, read_base_url, {"pattern": "^[Hh][Tt][Tt][Pp][Ss]?://"})]

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
_OURS = frozenset(
    [
        "host", "content-length", "content-type", "content-encoding", "accept-encoding", "expect", "connection",
        "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    ]
)  # fmt: skip
_CREDENTIALS = frozenset(["authorization", "proxy-authorization", "cookie", "api-key", "x-api-key", "x-goog-api-key"])

_NAMES_CREDENTIAL = re.compile(r".*(api-?key|access-?key|token|secret|password|auth|dsn)|x-honeycomb-team")
"""Names of header fields, in lower case, whose value is a key by all that is known."""

HeaderPairs = tuple[tuple[str, str | Secret], ...]


def read_headers(written: Mapping[str, str | Secret]) -> HeaderPairs:
    """Header names in lower case, sorted."""
    headers: dict[str, str | Secret] = {}
    found: list[Misread] = []
    for name, value in written.items():
        lower = name.lower()
        if mistake := _header_mistake(name, value, headers):
            found.append(Misread(mistake, name))
        headers[lower] = value
    Misreadings.refuse(found)
    return tuple(sorted(headers.items(), key=lambda header: header[0]))


def _header_mistake(name: str, value: str | Secret, before: Mapping[str, object]) -> str | None:
    """What is wrong with one header, after those *before* it."""
    lower = name.lower()
    # What was found is not shown, which it would be behind "expected": a header's value may be a key.
    if not _TOKEN.fullmatch(name):
        return "this is no header name: expected letters, digits and - (RFC 9110)"
    if lower in _OURS:
        return "this header is the proxy's own to write and cannot be set"
    if lower in before:
        return "this header is given twice, in different case"
    if isinstance(value, str) and _is_credential(lower, value):
        return 'a credential does not belong into the file: expected { env = "NAME" }'
    if not _is_field_value(value.reveal() if isinstance(value, Secret) else value):
        return "this is no header value: expected visible latin-1 characters, spaces inside, no line breaks"
    return None


def _is_credential(name: str, value: str) -> bool:
    """Whether the name says so, in lower case, or the value looks like a key."""
    return name in _CREDENTIALS or _NAMES_CREDENTIAL.fullmatch(name) is not None or masked(value) != value


HEADERS = "headers"
"""The key of LLMs and of telemetry that holds them."""


def without_values(headers: Iterable[tuple[str, object]]) -> tuple[tuple[str, object], ...]:
    """*headers* as they may be shown: any value may be a key, whatever its name."""
    return tuple((name, Secret(value) if isinstance(value, str) and value else value) for name, value in headers)


def _is_field_value(text: str) -> bool:
    """RFC 9110 section 5.5, less the empty value."""
    return (
        bool(text)
        and text == text.strip()
        and all(char == "\t" or (" " <= char <= "\xff" and char != "\x7f") for char in text)
    )


OutputBounds = tuple[tuple[str, int], ...]


def read_output_bounds(written: int | Mapping[str, int]) -> OutputBounds:
    """Pairs (model: a name or glob, tokens) in the order written; one number is for all models."""
    pairs = tuple(written.items()) if isinstance(written, Mapping) else (("*", written),)
    found = [Misread("expected 1 or more", name) for name, tokens in pairs if tokens < 1]
    if found and not isinstance(written, Mapping):
        raise ValueError("expected 1 or more")
    Misreadings.refuse(found)
    return pairs


MaxOutputTokens = Annotated[OutputBounds, WrittenAs(int | Mapping[str, int], read_output_bounds)]


UpstreamHeaders = Annotated[HeaderPairs, WrittenAs(Mapping[str, str | Secret], read_headers)]


@attrs.frozen(kw_only=True)
class TimeoutsTable:
    """The clocks of an upstream call, each enforced on its own; 0 switches one off."""

    connect_s: float = option(
        "Seconds until a connection stands, DNS and TLS included; also the wait for a free one in the pool.",
        default=Timeouts().connect_s or 0.0,
        validator=seconds,
    )
    first_byte_s: float = option(
        "Seconds from the request sent to the head of the answer, and from there to its first byte.",
        default=Timeouts().first_byte_s or 0.0,
        validator=seconds,
    )
    first_token_s: float = option(
        "Seconds from the request sent to the first event of a stream that answers something; roles, pings and the "
        "like do not count.",
        default=Timeouts().first_token_s or 0.0,
        validator=seconds,
    )
    between_tokens_s: float = option(
        "Seconds between two events of a stream that answer something; each event is decoded for it.",
        default=Timeouts().between_tokens_s or 0.0,
        validator=seconds,
    )
    idle_s: float = option(
        "Seconds between two reads of the answer.", default=Timeouts().idle_s or 0.0, validator=seconds
    )
    total_s: float = option(
        "Seconds for the whole call, from its start to the last byte.",
        default=Timeouts().total_s or 0.0,
        validator=seconds,
    )

    def timeouts(self) -> Timeouts:
        return Timeouts(**attrs.asdict(self))


@attrs.frozen(kw_only=True)
class PoolTable:
    """How many connections are kept; LLMs with equal pools share one."""

    max_connections: int = option(
        "Open connections to all hosts together, busy or idle; 0: no bound.",
        default=Pool().max_connections,
        validator=count,
    )
    max_connections_per_host: int = option(
        "Open connections to one host, busy or idle; 0: no bound.",
        default=Pool().max_connections_per_host,
        validator=count,
    )
    idle_s: float = option(
        "Seconds for which an unused connection is kept.", default=Pool().idle_s, validator=some_seconds
    )

    def pool(self) -> Pool:
        return Pool(self.max_connections, self.max_connections_per_host, self.idle_s)


_PROXY_SCHEMES = ("http", "https", "socks4", "socks5", "socks5h")
_NO_PROXY = ("none", "-")  # the latter stands for the secret of an LLM that is switched off


def read_proxy(written: str | Secret) -> Secret:
    """The checked URL of a proxy, which may have a password in it; "none" is one too."""
    text = written.reveal() if isinstance(written, Secret) else written
    if isinstance(written, str) and "@" in text:
        raise ValueError('a password does not belong into the file: expected { env = "NAME" }, which holds the URL')
    if text in _NO_PROXY:
        return Secret("none")
    expected = 'expected the URL of a proxy such as "http://proxy.example.com:3128", or "none"'
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError as error:
        raise ValueError(expected) from error
    if url.scheme not in _PROXY_SCHEMES:
        raise ValueError(f"{expected}; the scheme is one of {', '.join(_PROXY_SCHEMES)}")
    if not host or not is_host(host) or port == 0 or not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError(f"{expected}, with a host name or an IP address")
    if url.path not in ("", "/") or "?" in text or "#" in text:
        raise ValueError(f"{expected}, without a path")
    return Secret(text)


ProxyUrl = Annotated[Secret, WrittenAs(str | Secret, read_proxy)]

socket_path = matches(r"/[^\x00]{1,106}", "the absolute path of a Unix socket")


# -- the tables ------------------------------------------------------------------------------------------------------

environment_name: Check = matches(r"[A-Za-z_][A-Za-z0-9_]{0,127}", "the name of an environment variable")


def _environment_names(written: str | tuple[str, ...]) -> None:
    names = (written,) if isinstance(written, str) else written
    for name in names:
        environment_name(name)
    if not names or len(set(names)) < len(names):
        raise ValueError("expected at least one name, each once")


@attrs.frozen
class Key:
    """One of several keys of an LLM."""

    name: str
    """That of its environment variable."""
    token: Secret


@attrs.frozen(kw_only=True)
class LLMConfig:
    """The keys of every `[llm.NAME]`."""

    name: str = ""
    """The NAME of the table; no key."""
    provider: str = option("What builds this LLM; `llmproxy plugins` lists the providers.", example="openai")
    enabled: bool = option(
        "false: the LLM is not built and needs no key; a route that targets it is a problem.", default=True
    )
    supports_streaming: bool = option(
        "false: the LLM is always called plain, and its reply is written as a stream to a client that asked for one.",
        default=True,
    )
    models: Models = option(
        "The models it serves: a list of names or globs (`gpt-*`), or a table of what is asked (a name or glob) to the "
        "name that is sent. `GET /v1/models` lists the names written out. Absent: any model.",
        default=(),
        example=["gpt-4o", "gpt-4o-*"],
    )
    model: str | None = option(
        "The model that is sent, whatever is asked for.", default=None, validator=plain_text, example="gpt-4o"
    )
    retries: Retries | None = option(
        "How a call that fails is tried again: `{}` takes the defaults. Absent: not at all, unless MAX_RETRIES or one "
        "of its kin is set; a group that falls over tries by the defaults.",
        default=None,
        example={"max_retries": 3, "initial_backoff_s": 1.0},
    )
    commit: CommitPoint = option(
        "With retries, and in groups that fall over: up to which point the failure of a stream is hidden by another "
        "try. `headers`, `first-token`, or when so much has been said: `{ chars = 200, ms = 1500 }`.",
        default=FIRST_TOKEN,
        example="first-token",
    )
    max_in_flight: int = option(
        "Calls that it serves at once; one more waits (`max_queued`), goes to another member of its group, or is "
        "answered 503. 0: no bound.",
        default=0,
        validator=count,
    )
    max_queued: int = option(
        "Calls that wait for one of those to end, their callers in turn; one more goes elsewhere at once, the last one "
        "of the caller that has most. 0: none waits.",
        default=0,
        validator=count,
    )
    queue_timeout_s: float = option(
        "Seconds that a call waits, at most; never longer than its deadline.", default=1.0, validator=some_seconds
    )
    breaker: BreakerConfig | None = option(
        "When the LLM is left alone because it fails: `{}` takes the defaults. Absent: it is always called.",
        default=None,
        example={"failure_rate": 0.5, "open_s": 5.0},
    )
    priority: int = option(
        "Its place in groups of provider `priority`: lower numbers first.",
        default=1,
        validator=between(0, 1_000_000, "a number"),
    )
    weight: float = option(
        "Its share in groups of providers `balance` and `priority`; 0: only when all others fail.",
        default=1.0,
        validator=between(0, 1_000_000, "a number"),
    )
    prices: Prices = option(
        "USD per million tokens, by model name or glob; the first that fits counts.",
        default=(),
        example={"gpt-4o": {"input": "2.50", "cached_input": "1.25", "output": "10.00"}},
    )


@attrs.frozen(kw_only=True)
class HttpLLMConfig(LLMConfig):
    """The keys of an LLM that is reached over HTTP."""

    type: str | None = option(
        "The API that chat calls are sent in, one of the provider's; absent: the provider's own.",
        default=None,
        example="chat",
    )
    base_url: BaseUrl = option(
        "Where the API is, as the provider's SDK takes it: http or https, no query.",
        example="https://api.openai.com/v1",
    )
    token_env: str | tuple[str, ...] | None = option(
        "The environment variable that holds the key, or several: they are used in turn, and where one is refused or "
        "limited the next at once. Absent: no key is sent.",
        default=None,
        validator=_environment_names,
        example="OPENAI_API_KEY",
        secret=True,  # the key itself is what people write here by mistake
    )
    token: Secret | None = None
    """What `token_env` held when the configuration was read, or the first of them; no key of the table."""
    keys: tuple[Key, ...] = ()
    """All of them, where there are several; no key of the table."""
    probe: ProbeConfig | None = option(
        "How often the LLM is asked for its list of models, to know how it is when nobody calls it: `{}` takes the "
        "defaults. Absent: never.",
        default=None,
        example={"every_s": 30.0},
    )
    headers: UpstreamHeaders = option(
        'Headers that every call carries. A secret value is written `{ env = "NAME" }`.',
        default=(),
        example={"openai-organization": "org-1"},
    )
    timeouts: Annotated[Timeouts, WrittenAs(TimeoutsTable, TimeoutsTable.timeouts)] = option(
        "The clocks of an upstream call, in seconds, each enforced on its own; 0 switches one off.", default=Timeouts()
    )
    pool: Annotated[Pool, WrittenAs(PoolTable, PoolTable.pool)] = option(
        "How many connections are kept; LLMs with equal pools share one.", default=Pool()
    )
    transport: Literal["wire", "aiohttp"] | None = option(
        "What carries the calls. Absent: `aiohttp` for an LLM behind a proxy or a Unix socket, else `wire`, which is "
        "faster and stricter.",
        default=None,
    )
    proxy: ProxyUrl | None = option(
        "The proxy that the calls go through: http, https, socks4, socks5 or socks5h (the proxy resolves names); SOCKS "
        'needs `llmproxy[socks]`. One with a password is written `{ env = "NAME" }`. Absent: what `HTTPS_PROXY`, '
        "`HTTP_PROXY` and `NO_PROXY` of the environment say; `none`: no proxy.",
        default=None,
        example="http://proxy.example.com:3128",
        secret=True,  # a password is what people write into it
    )
    unix_socket: str | None = option(
        "The Unix socket that the API listens on; `base_url` then only says what is asked for, over http.",
        default=None,
        validator=socket_path,
        example="/run/llama.sock",
    )
    ask_usage: bool = option(
        "Ask for the usage of streams where the client did not, and withhold it from the client. false for servers "
        "that refuse `stream_options`.",
        default=True,
    )
    rewrite_model: bool = option(
        "Where `models` or `model` made another name of the one asked for, the client sees the name it asked for; "
        "false: it sees the upstream's.",
        default=True,
    )
    prefill: Prefill | None = option(
        "How the provider is asked to go on with an answer that has begun, for groups with `resume`: `prefix` marks "
        "the assistant's last turn (Mistral, DeepSeek's beta), `last-turn` does not (Claude up to 4.5, llama.cpp, "
        "OpenRouter), `no`: it cannot. Absent: as the provider's own API has it.",
        default=None,
    )
    max_output_tokens: MaxOutputTokens = option(
        "The bound on output tokens that is sent where a protocol needs one and the client, speaking another, gave "
        "none: a number, or a table of a model's name or glob to one. Absent: what the dialect knows of the model.",
        default=(),
        example={"claude-opus-*": 32000, "*": 8192},
    )
    max_response_bytes: int = option(
        "The longest plain answer that is read.", default=32 * 1024 * 1024, validator=byte_size
    )

    @property
    def connections(self) -> Pool:
        """The pool, with the way that its connections are made."""
        proxy = None if self.proxy is None or self.proxy.reveal() in _NO_PROXY else self.proxy
        return attrs.evolve(self.pool, transport=self.transport, proxy=proxy, unix_socket=self.unix_socket)
