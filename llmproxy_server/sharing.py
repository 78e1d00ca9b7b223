"""What several workers may not each keep for themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from llmproxy_core.config import Config, ProcessorConfig
from llmproxy_core.config_names import references
from llmproxy_core.errors import Problem


def unshared(config: Config) -> Iterator[Problem]:
    """
    The processors whose store each of the workers would have one of its own of, though it must be one for all.

    A file in which that is so is refused when it is read. But `workers` changes only by a restart: another number may
    be running than the file says by then.
    """
    if config.server.workers == 1:
        return
    for name, processor in config.processors.items():
        if processor.type.needs_shared_store:
            for store in stores_of(processor):
                if not config.stores[store].type.shared:
                    message = (
                        f'each of the {config.server.workers} workers that run would have a "{store}" of its own; use '
                        "a store of a type that processes share, or restart with workers = 1"
                    )
                    yield Problem(f"processor.{name}", message)


def stores_of(processor: ProcessorConfig) -> list[str]:
    """The names of the stores that *processor* uses."""
    kind: Any = type(processor.config)
    values = {field.name: getattr(processor.config, field.name) for field in attrs.fields(kind)}
    return [it.name for it in references(kind, values, ()) if it.section == "store"]
