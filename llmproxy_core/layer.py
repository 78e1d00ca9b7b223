"""Where in a chain of processors a call is."""

from __future__ import annotations

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
