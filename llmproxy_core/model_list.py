"""A model as lists name it."""

from __future__ import annotations

import attrs


@attrs.frozen
class ModelInfo:
    """
    One model. None: not known.

    *created* is seconds since the epoch; *input_limit* and *output_limit* are tokens.
    """

    id: str
    name: str | None = None
    """How it is shown to people."""
    created: int | None = None
    owner: str | None = None
    input_limit: int | None = None
    output_limit: int | None = None
