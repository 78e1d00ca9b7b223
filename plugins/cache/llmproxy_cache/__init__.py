"""
An exact cache: who asks the same question again gets the same answer, at once and for nothing.

Processor type `cache`; its README says what it promises. `DELETE /api/cache` empties it.
"""

from collections.abc import Iterable
from typing import Any

from llmproxy_cache.config import CacheConfig
from llmproxy_cache.endpoint import purge_endpoint
from llmproxy_cache.processor import Cache
from llmproxy_core import Endpoint, Operation, ProcessorType, hookimpl

__all__ = ["Cache", "CacheConfig", "llmproxy_endpoints", "llmproxy_processors"]


@hookimpl
def llmproxy_processors() -> Iterable[ProcessorType[Any]]:
    operations = frozenset({Operation.CHAT, Operation.EMBEDDINGS})
    return [ProcessorType("cache", CacheConfig, Cache, operations, skippable=True)]


@hookimpl
def llmproxy_endpoints() -> Iterable[Endpoint]:
    return [purge_endpoint()]
