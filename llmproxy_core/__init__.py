"""
The contract of llmproxy: what processors, providers and dialects are written against.

Names are listed in reading order. What is not in `__all__`, or begins with an underscore, is not for plugins.
`llmproxy_core.chat` (the neutral conversation) and `llmproxy_core.testing` are public modules of their own.
"""

from llmproxy_core.attempt import Attempt, ChildCall
from llmproxy_core.body import Body, PulledBody, Sink
from llmproxy_core.carried import SEAL_MARK, Carried, seal, unseal
from llmproxy_core.dialect import (
    Api,
    Dialect,
    Located,
    Operation,
    ReplyHead,
    RequestHead,
    Scanner,
    StreamReader,
    StreamWriter,
)
from llmproxy_core.effects import acts_elsewhere
from llmproxy_core.embeddings import EmbeddingInput, EmbeddingsReply, EmbeddingsRequest
from llmproxy_core.endpoint import Endpoint, EndpointReply, EndpointRequest
from llmproxy_core.errors import (
    BadRequest,
    BudgetExceeded,
    ConfigError,
    Forbidden,
    GuardrailBlocked,
    InternalError,
    MethodNotAllowed,
    Misdirected,
    Overloaded,
    PayloadTooLarge,
    Problem,
    ProcessorFailed,
    ProcessorTimeout,
    ProxyError,
    RateLimited,
    RequestRejected,
    RouteNotFound,
    StoreUnavailable,
    StreamingNotAllowed,
    Unauthorized,
    Unsupported,
    UnsupportedMediaType,
    UpstreamAuthError,
    UpstreamConnectError,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    UpstreamTimeout,
)
from llmproxy_core.exchange import Caller, Exchange
from llmproxy_core.frame import Frame
from llmproxy_core.group_config import GroupConfig
from llmproxy_core.headers import Headers
from llmproxy_core.hookspecs import ProcessorType, ProviderType, StoreType, hookimpl
from llmproxy_core.http_llm import COUNTED_HEADER, HttpLLM
from llmproxy_core.layer import Layer
from llmproxy_core.llm import FixedHeaders, LLMClient, Timeouts, Transport, UpstreamRequest, UpstreamResponse
from llmproxy_core.llm_config import BaseUrl, HttpLLMConfig, LLMConfig
from llmproxy_core.meter import CounterMetric, HistogramMetric, Meter
from llmproxy_core.model_list import ModelInfo
from llmproxy_core.model_map import ModelMap
from llmproxy_core.money import Money, Price
from llmproxy_core.notes import Note
from llmproxy_core.option import (
    between,
    byte_size,
    count,
    each,
    matches,
    non_negative,
    not_empty,
    one_of,
    option,
    plain_text,
    positive,
    seconds,
    some_seconds,
)
from llmproxy_core.outcome import MOST_FINISH_WORDS, End, KeptBody, Outcome
from llmproxy_core.prices import ModelPrice, Prices
from llmproxy_core.processor import Handler, Processor
from llmproxy_core.request import ClientView, Request
from llmproxy_core.response import Reply, Response, Stream
from llmproxy_core.secret import Secret
from llmproxy_core.services import ExtraCall, Pool, RouteView, Services
from llmproxy_core.shared import Shared, share
from llmproxy_core.stores import (
    Balance,
    Count,
    Counter,
    KeyValue,
    Ledger,
    Limit,
    OverLimit,
    Store,
    UsageRecord,
    Window,
)
from llmproxy_core.subscription import Keep
from llmproxy_core.tasks import Tasks
from llmproxy_core.text import Channel, Replace, TextFilter, Watcher, WordWatcher
from llmproxy_core.token_estimate import ROUGH, Tokenizer, estimated_output, estimated_tokens
from llmproxy_core.translation import CHANGED_HEADER, Translation, unsupported
from llmproxy_core.usage import Usage, UsageSource

__all__ = [
    # processors
    "Processor",
    "Handler",
    "ProcessorType",
    "option",
    "between",
    "byte_size",
    "count",
    "each",
    "matches",
    "non_negative",
    "not_empty",
    "one_of",
    "plain_text",
    "positive",
    "seconds",
    "some_seconds",
    "hookimpl",
    "Services",
    "RouteView",
    "ExtraCall",
    # one call
    "Exchange",
    "Request",
    "Caller",
    "Note",
    "Layer",
    "Attempt",
    "ChildCall",
    "Operation",
    "Headers",
    "ClientView",
    # its answer
    "Response",
    "Reply",
    "Stream",
    "Keep",
    "KeptBody",
    "Shared",
    "share",
    "Outcome",
    "MOST_FINISH_WORDS",
    "End",
    "Channel",
    "TextFilter",
    "Replace",
    "Watcher",
    "WordWatcher",
    # what it used and cost
    "Usage",
    "UsageSource",
    "Money",
    "Price",
    "ModelPrice",
    "Prices",
    "Meter",
    "CounterMetric",
    "HistogramMetric",
    # stores
    "Store",
    "StoreType",
    "KeyValue",
    "Count",
    "Counter",
    "Ledger",
    "Limit",
    "Balance",
    "OverLimit",
    "UsageRecord",
    "Window",
    # errors
    "ProxyError",
    "RequestRejected",
    "BadRequest",
    "BudgetExceeded",
    "Forbidden",
    "GuardrailBlocked",
    "MethodNotAllowed",
    "Misdirected",
    "PayloadTooLarge",
    "RateLimited",
    "RouteNotFound",
    "StreamingNotAllowed",
    "Unauthorized",
    "Unsupported",
    "UnsupportedMediaType",
    "UpstreamError",
    "UpstreamAuthError",
    "UpstreamConnectError",
    "UpstreamCut",
    "UpstreamGarbage",
    "UpstreamTimeout",
    "StoreUnavailable",
    "InternalError",
    "ProcessorFailed",
    "ProcessorTimeout",
    "Overloaded",
    "ConfigError",
    "Problem",
    # providers
    "ProviderType",
    "LLMClient",
    "LLMConfig",
    "COUNTED_HEADER",
    "HttpLLM",
    "HttpLLMConfig",
    "BaseUrl",
    "GroupConfig",
    "ModelMap",
    "Transport",
    "FixedHeaders",
    "UpstreamRequest",
    "UpstreamResponse",
    "Timeouts",
    "Pool",
    "Body",
    "PulledBody",
    "Sink",
    "Secret",
    "Tasks",
    # dialects
    "Dialect",
    "Api",
    "Located",
    "RequestHead",
    "ReplyHead",
    "Frame",
    "Scanner",
    "StreamReader",
    "StreamWriter",
    "Tokenizer",
    "ROUGH",
    "estimated_output",
    "estimated_tokens",
    "CHANGED_HEADER",
    "Translation",
    "unsupported",
    "Carried",
    "seal",
    "unseal",
    "SEAL_MARK",
    "EmbeddingInput",
    "EmbeddingsRequest",
    "EmbeddingsReply",
    "ModelInfo",
    "acts_elsewhere",
    # endpoints
    "Endpoint",
    "EndpointRequest",
    "EndpointReply",
]
