from __future__ import annotations

from typing import Any

import pytest

from gateway.handlers_.echo import echo
from gateway.jobcontext import JobCancelled, JobError
from gateway.jobtypes import InputInvalid
from gateway.testing import run_handler


@pytest.mark.parametrize("payload", [None, 3, "text", [1, {"a": None}], {"deep": {"er": [True]}}])
def test_the_payload_comes_back(payload: Any) -> None:
    run = run_handler(echo, {"payload": payload})
    assert run.result == {"payload": payload}
    assert run.progress == ()


@pytest.mark.parametrize(
    ("seconds", "steps", "percents"),
    [
        (0, 0, []),
        (2, 0, [100]),
        (2.5, 1, [100]),
        (2, 4, [25, 50, 75, 100]),
        (0, 3, [33, 66, 100]),
    ],
)
def test_time_is_taken_in_equal_steps(seconds: float, steps: int, percents: list[int]) -> None:
    run = run_handler(echo, {"payload": 1, "seconds": seconds, "steps": steps})
    assert [report.percent for report in run.progress] == percents
    assert run.slept == pytest.approx(seconds)


def test_a_failure_comes_after_the_steps_and_is_final() -> None:
    with pytest.raises(JobError, match="as you wished") as caught:
        run_handler(echo, {"payload": 1, "fail": "as you wished"})
    assert not caught.value.retry
    with pytest.raises(JobCancelled):
        run_handler(echo, {"payload": 1, "steps": 2, "fail": "never reached"}, cancel_at=50)


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({}, "/payload"),
        ({"payload": 1, "seconds": -1}, "/seconds"),
        ({"payload": 1, "seconds": 3601}, "/seconds"),
        ({"payload": 1, "seconds": "2"}, "/seconds"),
        ({"payload": 1, "seconds": float("nan")}, "/seconds"),
        ({"payload": 1, "steps": 1001}, "/steps"),
        ({"payload": 1, "steps": 1.5}, "/steps"),
        ({"payload": 1, "steps": True}, "/steps"),
        ({"payload": 1, "fail": ""}, "/fail"),
        ({"payload": 1, "speed": 1}, "/speed"),
    ],
)
def test_wishes_have_limits(given: dict[str, Any], pointer: str) -> None:
    with pytest.raises(InputInvalid) as caught:
        echo.parse_input(given)
    assert [fault.pointer for fault in caught.value.faults] == [pointer]
