"""Pages of a list: every job once, in order, whatever each partition was able to look at."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.ids import derived_id, is_id
from gateway.listing import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    Part,
    Place,
    Query,
    join,
    make_cursor,
    parse_cursor,
    parse_query,
    place_of,
)
from gateway.models import Job, View
from gateway.problems import Problem

IS_JOB = partial(is_id, "job")
JOB_ID = derived_id("job", 0, "one")


def a_view(made_at: int, number: int, partition: int) -> View:
    """Return a job made at an instant."""
    job = Job(
        id=derived_id("job", partition, str(number)),
        tenant="acme",
        type="demo.echo",
        status="pending",
        rev=1,
        created_at=made_at,
    )
    return View(job=job, callback=None, now=0)


def test_without_parameters() -> None:
    assert parse_query([]) == Query(limit=DEFAULT_LIMIT)


def test_with_all_of_them() -> None:
    query = parse_query(
        [
            ("status", "failed"),
            ("type", "demo.echo"),
            ("createdAfter", "1970-01-01T00:00:01Z"),
            ("createdBefore", "1970-01-01T01:00:02+01:00"),
            ("limit", "7"),
            ("cursor", make_cursor((5, JOB_ID))),
        ]
    )
    assert query == Query(
        status="failed",
        type="demo.echo",
        created_after=1_000_000,
        created_before=2_000_000,
        limit=7,
        place=(5, JOB_ID),
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "done"),
        ("status", ""),
        ("type", ""),
        ("type", "x" * 101),
        ("createdAfter", "yesterday"),
        ("createdBefore", "1700000000"),
        ("createdBefore", ""),
        ("limit", "0"),
        ("limit", str(MAX_LIMIT + 1)),
        ("limit", "-1"),
        ("limit", "1e2"),
        ("limit", "٣"),
        ("limit", "9" * 5000),
        ("cursor", ""),
        ("cursor", "x"),
        ("cursor", "ü"),
        ("cursor", "AAAA"),
        ("cursor", make_cursor((5, "key_00" + "0" * 22))),
        ("cursor", make_cursor((5, "*"))),
        ("cursor", make_cursor((-5, JOB_ID))),
        ("cursor", make_cursor((10**20, JOB_ID))),
        ("state", "failed"),
        ("Status", "failed"),
    ],
)
def test_what_is_refused(name: str, value: str) -> None:
    with pytest.raises(Problem) as caught:
        parse_query([(name, value)])
    assert caught.value.code == "invalid_parameter"
    assert caught.value.status == 400


def test_a_parameter_is_given_once() -> None:
    with pytest.raises(Problem, match="status may be given once"):
        parse_query([("status", "failed"), ("status", "pending")])


@given(st.integers(0, 2**53))
def test_a_cursor_stands_for_its_place(made_at: int) -> None:
    place = (made_at, JOB_ID)
    cursor = make_cursor(place)
    assert parse_cursor(cursor, IS_JOB) == place
    assert cursor.replace("-", "").replace("_", "").isalnum()


@given(st.text())
def test_no_text_is_a_fault_of_ours(text: str) -> None:
    with suppress(Problem):
        place = parse_cursor(text, IS_JOB)
        assert place is not None
        assert IS_JOB(place[1])


def look(views: list[View], after: Place | None, wanted: set[int], limit: int, scan: int) -> Part:
    """Return what the script of a partition returns for its jobs, newest first."""
    rows: list[View] = []
    reached: Place | None = None
    rest = (view for view in views if after is None or place_of(view) < after)
    for looked, view in enumerate(rest):
        if len(rows) >= limit or looked >= scan:
            return Part(rows=rows, reached=reached)
        reached = place_of(view)
        if view.job.created_at in wanted:
            rows.append(view)
    return Part(rows=rows, reached=None)


@given(
    made=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 3)), max_size=60),
    wanted=st.sets(st.integers(1, 30)),
    limit=st.integers(1, 9),
    scan=st.integers(1, 9),
)
def test_every_wanted_job_once_and_in_order(
    made: list[tuple[int, int]], wanted: set[int], limit: int, scan: int
) -> None:
    views = [a_view(at, number, partition) for number, (at, partition) in enumerate(made)]
    views.sort(key=place_of, reverse=True)
    kept = [[view for view in views if view.job.id[4:6] == f"{at:02d}"] for at in range(4)]
    listed: list[View] = []
    place: Place | None = None
    for _ in range(len(views) + 2):
        page, following = join([look(each, place, wanted, limit, scan) for each in kept], limit)
        assert len(page) <= limit
        listed += page
        if following is None:
            break
        assert place is None or following < place
        place = following
    else:
        pytest.fail("the list never ends")
    assert listed == [view for view in views if view.job.created_at in wanted]
