"""Dead letters as everyone who looks at them sees them: what is asked about them, and how they are
counted.

Pure. One predicate, `matches`, decides for lists, counts and replays alike which dead letters a
filter means. A dead letter need not be a delivery: whoever has others gives them this shape.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from config.clock import HOUR

Place = tuple[int, str]
"""Where a dead letter stands in the order: when it died, µs, and its identifier."""

START: Place = (0, "")
"""Before all of them."""

_DAY = 24 * HOUR
_BANDS = (("1h", HOUR), ("1d", _DAY), ("7d", 7 * _DAY), ("30d", 30 * _DAY))
AGE_BANDS = (*(name for name, _ in _BANDS), "older")
"""Ages are counted in these: up to an hour, from there up to a day, and so on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """What filters look at.

    Attributes:
        id: identifier.
        tenant: whose it is.
        reason: why it is dead.
        endpoint: identifier of the endpoint it was for; empty when for none.
        origin: of that endpoint.
        died_at: µs.
        tags: the sender's own.
    """

    id: str
    tenant: str
    reason: str
    endpoint: str
    origin: str
    died_at: int
    tags: Mapping[str, Any]

    @property
    def place(self) -> Place:
        """Where it stands in the order."""
        return self.died_at, self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which dead letters are meant; what is None or empty says nothing.

    Attributes:
        reason: why they are dead.
        endpoint: an endpoint, by its identifier or its origin.
        tags: values that the tags of these names have.
        died_after: they died at that instant or later, µs.
        died_before: they died earlier, µs.
    """

    reason: str | None = None
    endpoint: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    died_after: int | None = None
    died_before: int | None = None

    @property
    def means_all(self) -> bool:
        """Whether it says nothing."""
        return self == Filter()

    @property
    def start(self) -> Place:
        """The place after which the first one it may mean stands."""
        return (self.died_after or 0), ""


def matches(wanted: Filter, letter: Letter) -> bool:
    """Tell whether `wanted` means this letter."""
    return (
        (wanted.reason is None or letter.reason == wanted.reason)
        and (wanted.endpoint is None or wanted.endpoint in {letter.endpoint, letter.origin})
        and all(letter.tags.get(name) == value for name, value in wanted.tags.items())
        and (wanted.died_after is None or letter.died_at >= wanted.died_after)
        and (wanted.died_before is None or letter.died_at < wanted.died_before)
    )


def age_band(age: int) -> str:
    """Return the band that an age in µs belongs to."""
    return next((name for name, limit in _BANDS if age < limit), AGE_BANDS[-1])


@dataclass(slots=True, kw_only=True)
class Tally:
    """Dead letters counted by what they have in common.

    Attributes:
        now: µs; ages are counted from it.
        tag: the name of the tag whose values are counted.
        endpoints: by identifier and origin.
        tags: by the value of that tag; those without one by the empty text.
    """

    now: int
    tag: str
    total: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    endpoints: Counter[tuple[str, str]] = field(default_factory=Counter)
    tags: Counter[str] = field(default_factory=Counter)
    ages: Counter[str] = field(default_factory=Counter)

    def add(self, letter: Letter) -> None:
        """Count one more."""
        self.total += 1
        self.reasons[letter.reason] += 1
        self.endpoints[letter.endpoint, letter.origin] += 1
        self.tags[str(letter.tags.get(self.tag) or "")] += 1
        self.ages[age_band(self.now - letter.died_at)] += 1


def most(counter: Counter[Any], number: int) -> list[tuple[Any, int]]:
    """Return the `number` keys counted most often, those alike in the order of their keys."""
    return list(islice(sorted(counter.items(), key=lambda each: (-each[1], each[0])), number))
