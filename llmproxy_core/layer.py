"""Where in a chain of processors a call is."""

from __future__ import annotations

from contextvars import ContextVar

import attrs


@attrs.frozen(eq=False)
class Layer:
    """One processor's place: its name in the configuration, and how many are around it."""

    name: str
    depth: int
    passes_over: bool = False
    """Whether the call goes on without the processor when that fails (`on_error = "pass"`)."""


OUTSIDE = Layer("", 0)
"""Where no processor runs: the edge, and the LLM itself."""

running: ContextVar[Layer] = ContextVar("llmproxy_layer", default=OUTSIDE)
"""
The processor that runs now, set by `pipeline` alone.

Of the task, not of the exchange: a processor may wait for several calls of `call_next` at once, and be given a response
that belongs to a child's exchange, which it did not make.
"""
