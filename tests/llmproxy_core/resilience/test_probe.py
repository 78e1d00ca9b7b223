"""When probes are made."""

from __future__ import annotations

from llmproxy_core.resilience.probe import ProbeConfig
from llmproxy_core.testing.chance import seeded


def test_probes_are_spread_by_a_fifth_of_the_time_between_two() -> None:
    probe, chance = ProbeConfig(every_s=100.0), seeded(1)

    waits = [probe.wait_s(chance) for _ in range(1000)]

    assert 80 <= min(waits) < 85
    assert 115 < max(waits) <= 120


def test_the_first_one_comes_at_any_moment_of_that_time() -> None:
    probe, chance = ProbeConfig(every_s=100.0), seeded(1)

    waits = [probe.first_s(chance) for _ in range(1000)]

    assert 0 <= min(waits) < 5
    assert 95 < max(waits) <= 100
