"""The array of one process: where a series lies, and what happens when there is no room."""

import pytest

from llmproxy_server.metrics.snapshot import added_up
from llmproxy_server.metrics.values import DROPPED, SCRATCH, Family, Slot, Values, labels_of

CALLS = Family("calls_total", "counter", "Calls.")
TIMES = Family("times_seconds", "histogram", "Times.", (0.1, 1.0))


def test_a_series_stays_where_it_is() -> None:
    values = Values.anonymous()

    first = values.place(CALLS, labels_of(model="a"))

    assert values.place(CALLS, labels_of(model="b")) != first
    assert values.place(CALLS, labels_of(model="a")) == first


def test_a_histogram_has_a_cell_for_each_bucket_one_beyond_them_and_a_sum() -> None:
    values = Values.anonymous()

    index = values.place(TIMES)

    assert values.place(CALLS) == index + 4


def test_what_there_is_no_room_for_is_counted_and_changes_nothing_else() -> None:
    values = Values.anonymous(cells=68)  # the scratch cells, and four more
    kept = [values.place(CALLS, labels_of(model=str(number))) for number in range(3)]

    index = values.place(CALLS, labels_of(model="3"))
    values.cells[index] += 7

    assert SCRATCH not in kept
    assert index == SCRATCH
    snapshot = added_up([Slot(values.series, values.cells)])
    assert snapshot.of(DROPPED.name).value() == 1
    assert set(snapshot.of(CALLS.name).cells.values().__iter__().__next__()) == {0.0}
    assert values.used == 1.0


@pytest.mark.parametrize(
    "other",
    [
        Family(TIMES.name, "counter", "Times."),
        Family(TIMES.name, "histogram", "Times.", (0.1, 2.0)),
    ],
    ids=["kind", "buckets"],
)
def test_one_name_has_one_meaning(other: Family) -> None:
    values = Values.anonymous()
    values.place(TIMES)

    with pytest.raises(ValueError, match="times_seconds is there already"):
        values.place(other)


@pytest.mark.parametrize("buckets", [(1.0, 0.1), (1.0, 1.0), tuple(map(float, range(63)))])
def test_buckets_rise_and_are_not_too_many(buckets: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="at most 62 buckets, in rising order"):
        Values.anonymous().place(Family("times_seconds", "histogram", "Times.", buckets))


def test_a_family_can_be_set_to_zero() -> None:
    values = Values.anonymous()
    index, other = values.place(CALLS, labels_of(model="a")), values.place(TIMES)
    values.cells[index] = values.cells[other] = 5

    values.clear(CALLS.name)

    assert (values.cells[index], values.cells[other]) == (0, 5)


def test_numbers_of_several_processes_are_added_and_of_moments_the_latest_counts() -> None:
    latest = Family("last_seconds", "latest", "When.")
    slots = []
    for number in (1.0, 2.0):
        values = Values.anonymous()
        for family in (CALLS, TIMES, latest):
            values.cells[values.place(family)] = number
        slots.append(Slot(values.series, values.cells))

    snapshot = added_up(slots)

    assert snapshot.of(CALLS.name).value() == 3
    assert snapshot.of(TIMES.name).cells[()] == [3, 0, 0, 0]
    assert snapshot.of(latest.name).value() == 2


def test_of_two_meanings_of_a_name_the_first_counts() -> None:
    one, two = Values.anonymous(), Values.anonymous()
    one.cells[one.place(CALLS)] = 1
    two.cells[two.place(Family(CALLS.name, "gauge", "Something else."))] = 5

    snapshot = added_up(Slot(it.series, it.cells) for it in (one, two))

    assert snapshot.of(CALLS.name).value() == 1
