"""Whether somebody keeps up with a least rate: clients that send a body, and clients that take an answer."""

from __future__ import annotations


def behind(so_far_s: float, waited_s: float, size: int, min_bytes_per_s: int) -> float:
    """
    How many seconds somebody is behind *min_bytes_per_s*, who was *so_far_s* behind before *waited_s* and *size* bytes.

    Never ahead: who was fast in the beginning buys no hours of slowness by it. Without a rate (0) whatever comes makes
    up for all that was waited.
    """
    if not min_bytes_per_s:
        return 0.0 if size else so_far_s + waited_s
    return max(so_far_s + waited_s - size / min_bytes_per_s, 0.0)
