"""The breakers of upstreams: when one opens, what it lets through, how many are remembered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.handlers_.breaker import Breakers, Closed, Open, Rules, State, admit, after

RULES = Rules(failures=3, wait=10)


@pytest.mark.parametrize(
    ("state", "success", "then"),
    [
        (Closed(), True, Closed()),
        (Closed(), False, Closed(failures=1)),
        (Closed(failures=2), True, Closed()),
        (Closed(failures=2), False, Open(probe_at=110)),
        (Open(probe_at=50), True, Closed()),
        (Open(probe_at=50), False, Open(probe_at=110)),
    ],
)
def test_what_an_outcome_does_to_a_breaker(state: State, success: bool, then: State) -> None:
    assert after(state, 100, RULES, success=success) == then


def test_an_open_breaker_lets_one_through_each_wait() -> None:
    state: State = Open(probe_at=10)
    admitted = []
    for now in range(40):
        passes, state = admit(state, now, RULES)
        if passes:
            admitted.append(now)
    assert admitted == [10, 20, 30]


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 100)), max_size=50))
def test_a_breaker_never_stays_open(events: list[tuple[bool, float]]) -> None:
    state: State = Closed()
    now = 0.0
    for success, pause in events:
        now += pause
        passes, state = admit(state, now, RULES)
        if passes:
            state = after(state, now, RULES, success=success)
        assert admit(state, now + RULES.wait, RULES)[0]


def test_only_so_many_breakers_are_remembered() -> None:
    breakers = Breakers(limit=2)
    once = Rules(failures=1, wait=100)
    for name in ("a", "b", "c"):
        breakers.report(name, 0, once, success=False)
    assert [breakers.admit(name, 1, once) for name in ("c", "b", "a")] == [False, False, True]
