"""What a replay does next, and which dead letters it takes: rules."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.letters import START, Filter
from delivery.replay_steps import (
    BATCH,
    BITE,
    BRAKED_WINDOW,
    PACE,
    SAMPLE,
    WINDOW,
    Candidate,
    Complete,
    Finish,
    Move,
    Step,
    Stop,
    Wait,
    bites,
    choose,
    next_step,
    rest,
)
from delivery.replays import Definition, Part, Replay
from tests.delivery.test_deadletters import LETTER


def a_replay(**changes: Any) -> Replay:
    definition = Definition(**{"filter": Filter(), **changes})
    return Replay(
        id="rpl_1",
        tenant="t1",
        kind="delivery",
        definition=definition,
        to_url=b"",
        state="running",
        reason=None,
        created_at=0,
        updated_at=0,
        died_before=1_000,
        base=(0, 0),
    )


FRESH, DONE = Part(), Part(done=True)


def counted(**counts: int) -> Part:
    return Part(counts=counts)


@pytest.mark.parametrize(
    ("definition", "parts", "stalled", "step"),
    [
        ({}, [FRESH, FRESH], False, Move(partition=0, limit=BATCH)),
        ({}, [DONE, FRESH], False, Move(partition=1, limit=BATCH)),
        ({}, [DONE, DONE], False, Complete()),
        ({}, [FRESH, Part(plan=b"[]")], False, Finish(partition=1, plan=b"[]")),
        ({"most": 3}, [FRESH], False, Move(partition=0, limit=3)),
        ({"most": 3}, [counted(replayed=3)], False, Complete()),
        ({"most": 3, "dry_run": True}, [counted(matched=3)], False, Complete()),
        ({"rate": 100.0}, [FRESH], False, Move(partition=0, limit=50)),
        ({"rate": 0.1}, [FRESH], False, Move(partition=0, limit=1)),
        ({"rate": 0.1, "dry_run": True}, [FRESH], False, Move(partition=0, limit=BATCH)),
        ({}, [counted(replayed=WINDOW)], False, Wait()),
        ({}, [counted(replayed=WINDOW)], True, Move(partition=0, limit=BRAKED_WINDOW)),
        ({}, [counted(replayed=WINDOW, attempted=7)], False, Move(partition=0, limit=7)),
        ({"action": "purge"}, [counted(purged=WINDOW)], False, Move(partition=0, limit=BATCH)),
        ({"brake": 0.5}, [FRESH], False, Move(partition=0, limit=BRAKED_WINDOW)),
        (
            {"brake": 0.5},
            [counted(replayed=100, attempted=SAMPLE - 1)],
            False,
            Move(partition=0, limit=19),
        ),
        (
            {"brake": 0.5},
            [counted(replayed=100, attempted=SAMPLE)],
            False,
            Stop(reason="failure_rate"),
        ),
        (
            {"brake": 0.5},
            [counted(replayed=100, attempted=20, delivered=11)],
            False,
            Move(partition=0, limit=20),
        ),
        (
            {"brake": 0.5},
            [counted(replayed=100, attempted=20), DONE],
            False,
            Stop(reason="failure_rate"),
        ),
    ],
)
def test_the_next_step(
    definition: dict[str, Any], parts: list[Part], stalled: bool, step: Step
) -> None:
    found = next_step(
        a_replay(**definition),
        dict(enumerate(parts)),
        batch=BATCH,
        tracked=True,
        stalled=stalled,
    )
    assert found == step


def test_a_brake_counts_from_where_it_began() -> None:
    replay = a_replay(brake=0.5)
    parts = {0: counted(replayed=100, attempted=40, delivered=0)}
    options: dict[str, Any] = {"batch": BATCH, "tracked": True, "stalled": False}
    for base in (None, (40, 40), (25, 25)):
        assert isinstance(next_step(replace(replay, base=base), parts, **options), Move)
    assert next_step(replay, parts, **options) == Stop(reason="failure_rate")


@given(st.floats(0, 100))
def test_a_replay_rests_at_least_as_long_as_it_takes(took: float) -> None:
    assert rest(took) >= took
    assert took + rest(took) >= PACE - 1e-9


Candidates = st.lists(
    st.builds(
        lambda gap, reason, why: (gap, reason, why),
        st.integers(0, 40),
        st.sampled_from(["exhausted", "gone"]),
        st.sampled_from([None, None, "unknown", "pending"]),
    ),
    max_size=60,
)


@given(Candidates, st.booleans(), st.integers(1, 7), st.integers(1, 9), st.booleans())
def test_batches_go_through_all_in_order(
    rows: list[tuple[int, str, str | None]], is_named: bool, limit: int, page: int, picky: bool
) -> None:
    """Whatever the limits are, those meant are chosen once each, in their order."""
    found, died_at = [], 0
    for number, (gap, reason, why) in enumerate(rows):
        died_at += gap
        place = (0, f"{number:03d}") if is_named else (died_at, f"{number:03d}")
        letter = replace(LETTER, id=place[1], reason=reason, died_at=died_at)
        found.append(Candidate(place=place, letter=letter, why=why if is_named else None))
    replay = a_replay(filter=None if is_named else Filter(reason="gone" if picky else None))
    place, chosen, counts = START, list[str](), Counter[str]()
    for _ in range(len(found) + 2):
        beyond = [each for each in found if each.place > place]
        reached = beyond[page - 1].place if len(beyond) > page else None
        batch = choose(replay, place, beyond[:page], reached, limit)
        assert batch.place == place
        assert batch.done or batch.to > place
        assert len(batch.chosen) <= limit
        chosen += batch.chosen
        counts.update(batch.counts)
        place = batch.to
        if batch.done:
            break
    else:
        pytest.fail("never done")
    meant = [
        each.place[1]
        for each in found
        if each.why is None
        and each.letter is not None
        and each.letter.died_at < replay.died_before
        and (is_named or not picky or each.letter.reason == "gone")
    ]
    assert chosen == meant
    assert counts["matched"] == len(meant)
    skipped = sum(count for name, count in counts.items() if name.startswith("skip:"))
    assert not is_named or counts["looked"] == len(found) == len(meant) + skipped


@given(Candidates, st.integers(1, 50), st.booleans(), st.booleans(), st.booleans())
def test_bites_are_a_batch_in_pieces(
    rows: list[tuple[int, str, str | None]],
    limit: int,
    more: bool,
    picky: bool,
    dry_run: bool,
) -> None:
    found, died_at = [], 0
    for number, (gap, reason, _) in enumerate(rows):
        died_at += gap
        letter = replace(LETTER, id=f"{number:03d}", reason=reason, died_at=died_at)
        found.append(Candidate(place=letter.place, letter=letter))
    reached = found[-1].place if found and more else None
    replay = a_replay(filter=Filter(reason="gone" if picky else None), dry_run=dry_run)
    whole = choose(replay, START, found, reached, limit)
    pieces = bites(replay, START, found, reached, limit)
    assert [START, *(each.to for each in pieces)] == [*(each.place for each in pieces), whole.to]
    assert [each.done for each in pieces] == [*[False] * (len(pieces) - 1), whole.done]
    assert tuple(each for piece in pieces for each in piece.chosen) == whole.chosen
    assert sum((Counter(each.counts) for each in pieces), Counter()) == whole.counts
    assert dry_run or all(len(each.chosen) <= BITE for each in pieces)
    assert all(each.chosen for each in pieces[:-1])
