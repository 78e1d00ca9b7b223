"""What outlives a gateway: shared by equal keys, closed with its last user."""

from __future__ import annotations

import logging

import pytest

from llmproxy_core.resources import Resources


class Thing:
    def __init__(self, closed: list[Thing]) -> None:
        self._closed = closed

    async def aclose(self) -> None:
        self._closed.append(self)


async def test_equal_keys_of_two_leases_are_one_resource_until_both_are_released() -> None:
    resources, closed = Resources(), list[Thing]()
    old, new = resources.lease(), resources.lease()

    thing = old.get(("store", 1), lambda: Thing(closed), Thing.aclose)
    again = new.get(("store", 1), lambda: Thing(closed), Thing.aclose)

    assert again is thing
    await old.release()
    assert closed == []
    await new.release()
    assert closed == [thing]
    assert len(resources) == 0


async def test_what_the_new_lease_does_not_ask_for_is_closed_with_the_old_one() -> None:
    resources, closed = Resources(), list[Thing]()
    old, new = resources.lease(), resources.lease()
    kept = old.get("kept", lambda: Thing(closed), Thing.aclose)
    dropped = old.get("dropped", lambda: Thing(closed), Thing.aclose)
    new.get("kept", lambda: Thing(closed), Thing.aclose)

    await old.release()

    assert closed == [dropped]
    assert new.get("kept", lambda: Thing(closed), Thing.aclose) is kept


async def test_a_lease_counts_once_however_often_it_asks_and_is_released() -> None:
    resources, closed = Resources(), list[Thing]()
    one, other = resources.lease(), resources.lease()
    one.get("it", lambda: Thing(closed), Thing.aclose)
    one.get("it", lambda: Thing(closed), Thing.aclose)
    other.get("it", lambda: Thing(closed), Thing.aclose)

    await one.release()
    await one.release()

    assert closed == []


async def test_state_without_an_end_is_just_dropped() -> None:
    resources = Resources()
    lease = resources.lease()
    state = lease.get("state", list)
    state.append(1)

    await lease.release()

    assert resources.lease().get("state", list) == []


async def test_one_that_cannot_be_closed_is_named_and_does_not_keep_the_others_open(
    caplog: pytest.LogCaptureFixture,
) -> None:
    resources, closed = Resources(), list[Thing]()
    lease = resources.lease()

    async def fail(_: object) -> None:
        raise OSError("the disk is gone")

    lease.get("bad", object, fail, "store broken")
    lease.get("unnamed", object, fail)
    good = lease.get("good", lambda: Thing(closed), Thing.aclose)

    with caplog.at_level(logging.ERROR):
        await lease.release()

    assert closed == [good]
    assert {it.getMessage() for it in caplog.records} == {
        "the store broken could not be closed",
        "the resource could not be closed",
    }


async def test_closing_all_leaves_nothing_for_the_leases_to_close() -> None:
    resources, closed = Resources(), list[Thing]()
    lease = resources.lease()
    thing = lease.get("it", lambda: Thing(closed), Thing.aclose)

    await resources.aclose()
    await lease.release()

    assert closed == [thing]
