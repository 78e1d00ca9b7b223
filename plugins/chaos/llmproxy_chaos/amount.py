"""A figure of a fault: one number, or a range that it is drawn from."""

from __future__ import annotations

from collections.abc import Callable

Amount = int | tuple[int, ...]
"""A number, or `[from, to]`, both ends included."""


def amount(highest: int, what: str) -> Callable[[Amount], None]:
    """A validator: 0 to *highest*, fixed or as a range. *what* names the unit."""

    def check(value: Amount) -> None:
        ends = (value, value) if isinstance(value, int) else value
        if len(ends) != 2 or not 0 <= ends[0] <= ends[1] <= highest:
            raise ValueError(f"expected {what} from 0 to {highest}, or an array [from, to] of two such numbers")

    return check


def drawn(value: Amount, chance: float) -> int:
    """
    The number that *chance*, 0 to below 1, picks.

    >>> drawn(7, 0.9), drawn((10, 20), 0.0), drawn((10, 20), 0.999)
    (7, 10, 20)
    """
    if isinstance(value, int):
        return value
    low, high = value
    return low + int(chance * (high - low + 1))
