"""An endpoint's secrets through rotations: what signs when, and how much of it is kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from config.clock import SECOND
from delivery.secrets import MAX_RETIRED, Secret, Secrets

NOW = 1_795_000_000 * SECOND
DAY = 86_400 * SECOND

FIRST = Secrets(newest=Secret(text="first"))


def test_both_sign_until_the_overlap_ends() -> None:
    rotated = FIRST.rotated("second", now=NOW, overlap=DAY)
    assert rotated.in_force(NOW) == ("second", "first")
    assert rotated.in_force(NOW + DAY - 1) == ("second", "first")
    assert rotated.in_force(NOW + DAY) == ("second",)
    assert [each.until for each in rotated.retiring(NOW)] == [NOW + DAY]


def test_without_an_overlap_nothing_older_signs() -> None:
    twice = FIRST.rotated("second", now=NOW, overlap=DAY)
    assert twice.rotated("third", now=NOW, overlap=0).in_force(NOW) == ("third",)


def test_a_shorter_overlap_ends_earlier_ones_too() -> None:
    twice = FIRST.rotated("second", now=NOW, overlap=DAY).rotated("third", now=NOW, overlap=SECOND)
    assert twice.in_force(NOW) == ("third", "second", "first")
    assert twice.in_force(NOW + SECOND) == ("third",)


def test_a_longer_overlap_does_not_lengthen_earlier_ones() -> None:
    twice = FIRST.rotated("second", now=NOW, overlap=SECOND).rotated("third", now=NOW, overlap=DAY)
    assert twice.in_force(NOW + SECOND) == ("third", "second")


def test_an_overlap_is_cut_short() -> None:
    rotated = FIRST.rotated("second", now=NOW, overlap=DAY)
    assert rotated.settled().in_force(NOW) == ("second",)
    assert FIRST.settled() == FIRST


def test_a_retired_one_may_come_back() -> None:
    back = FIRST.rotated("second", now=NOW, overlap=DAY).rotated("first", now=NOW, overlap=DAY)
    assert back.in_force(NOW) == ("first", "second")


def test_to_the_newest_is_no_rotation() -> None:
    rotated = FIRST.rotated("second", now=NOW, overlap=DAY)
    assert rotated.rotated("second", now=NOW, overlap=0) == rotated


def test_each_keeps_the_wish_that_brought_it() -> None:
    rotated = FIRST.rotated("second", now=NOW, overlap=DAY, wish="w2")
    again = rotated.rotated("third", now=NOW, overlap=DAY, wish="w3")
    kept = (again.newest, *again.retired)
    assert [(each.text, each.wish) for each in kept] == [
        ("third", "w3"),
        ("second", "w2"),
        ("first", ""),
    ]


TEXTS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=9)
STEPS = st.lists(
    st.tuples(TEXTS, st.integers(0, 2 * DAY), st.integers(0, DAY), st.sampled_from(["", "w1", "w"]))
)


@given(steps=STEPS)
def test_whatever_is_done_to_them(steps: list[tuple[str, int, int, str]]) -> None:
    secrets, now = FIRST, NOW
    for text, overlap, passes, wish in steps:
        before = secrets.in_force(now)
        secrets = secrets.rotated(text, now=now, overlap=overlap, wish=wish)
        in_force = secrets.in_force(now)
        assert in_force[0] == text
        assert len(set(in_force)) == len(in_force) <= 1 + MAX_RETIRED
        # Nobody is surprised: what is replaced signs on, up to the bound and if it may at all.
        if overlap > 0:
            expected = [text, *(each for each in before if each != text)][: 1 + MAX_RETIRED]
            assert list(in_force) == expected
        assert Secrets.decode(secrets.encode()) == secrets
        now += passes
    assert secrets.in_force(now + 4 * DAY) == (secrets.newest.text,)
