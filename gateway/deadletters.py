"""Dead letters as operators look at them: deliveries and failed jobs, page by page, and counted.

A page and a count look at a bounded number of dead letters. So a page may hold fewer than were
asked for and still lead on, and a count says when it was cut.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast, get_args

from config.ids import is_id
from delivery.deadletters import PAGE, Page, Read, read_dead, walk
from delivery.letters import START, Filter, Letter, Place, Tally, matches
from delivery.models import DeadDelivery
from gateway.auth import TENANT
from gateway.failed import JOB_TAG, TYPE_TAG, FailedJob
from gateway.listing import DEFAULT_LIMIT, parse_cursor, parse_instant, parse_limit
from gateway.problems import Problem
from gateway.services import Services

Kind = Literal["delivery", "job"]
PREFIXES = {"delivery": "msg", "job": "job"}
"""Of identifiers, by kind."""

SCAN = 2_000
"""How many dead letters are looked at for one page."""

COUNTED = 100_000
"""How many dead letters a count looks at."""

FILTERS = ("kind", "reason", "endpoint", "type", "job", "diedAfter", "diedBefore", "tenant")
_MAX_TEXT = 2_048

Row = DeadDelivery | FailedJob


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which dead letters are wanted.

    Attributes:
        tenant: whose; None for the one who asks.
        place: go on after it.
    """

    kind: Kind
    filter: Filter
    tenant: str | None
    limit: int = DEFAULT_LIMIT
    place: Place = START


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Dead letters, counted.

    Attributes:
        cut: there are more than were looked at.
    """

    tally: Tally
    cut: bool


def parse_query(parameters: Iterable[tuple[str, str]], *, paged: bool) -> Query:
    """Return what the query parameters ask for.

    Args:
        parameters: as they came.
        paged: whether `limit` and `cursor` are among those known.

    Raises:
        Problem: `invalid_parameter`, naming it.
    """
    known = (*FILTERS, "limit", "cursor") if paged else FILTERS
    given: dict[str, str] = {}
    for name, value in parameters:
        if name not in known:
            raise Problem("invalid_parameter", f"known parameters are {', '.join(known)}")
        if name in given:
            raise Problem("invalid_parameter", f"{name} may be given once")
        if not 1 <= len(value) <= _MAX_TEXT:
            raise Problem("invalid_parameter", f"{name} has 1 to {_MAX_TEXT} characters")
        given[name] = value
    kind = given.get("kind", "delivery")
    if kind not in get_args(Kind):
        raise Problem("invalid_parameter", f"kind is one of {', '.join(get_args(Kind))}")
    tenant = given.get("tenant")
    if tenant is not None and TENANT.fullmatch(tenant) is None:
        raise Problem("invalid_parameter", "tenant is none that can be")
    return Query(
        kind=cast("Kind", kind),
        filter=make_filter(
            reason=given.get("reason"),
            endpoint=given.get("endpoint"),
            job_type=given.get("type"),
            job=given.get("job"),
            died_after=parse_instant("diedAfter", given.get("diedAfter")),
            died_before=parse_instant("diedBefore", given.get("diedBefore")),
        ),
        tenant=tenant,
        limit=parse_limit(given.get("limit")),
        place=parse_cursor(given.get("cursor"), partial(is_id, PREFIXES[kind])) or START,
    )


def make_filter(
    *,
    reason: str | None,
    endpoint: str | None,
    job_type: str | None,
    job: str | None,
    died_after: int | None,
    died_before: int | None,
) -> Filter:
    """Return the filter that says so; what is None says nothing."""
    tags = {TYPE_TAG: job_type, JOB_TAG: job}
    return Filter(
        reason=reason,
        endpoint=endpoint,
        tags={name: value for name, value in tags.items() if value is not None},
        died_after=died_after,
        died_before=died_before,
    )


class DeadLetters:
    """Reads the dead letters of both kinds."""

    def __init__(self, services: Services) -> None:
        self._deliveries = services.deliveries
        self._failed = services.failed
        self._clock = services.clock
        self._partitions = services.settings.store.partitions

    async def page(self, query: Query, tenant: str) -> tuple[list[Row], Place | None]:
        """Return a page, oldest first, and the place to go on after; None at the end."""
        found: list[Row] = []
        looked = 0
        place = query.place
        async for row in self._walk(query, tenant, with_last=True):
            if looked >= SCAN or len(found) >= query.limit:
                return found, place
            looked += 1
            place = row.letter.place
            if matches(query.filter, row.letter):
                found.append(row)
        return found, None

    async def count(self, query: Query, tenant: str) -> Counted:
        """Count the dead letters that the filter means."""
        tally = Tally(now=self._clock.now(), tag=TYPE_TAG)
        looked = 0
        async for row in self._walk(query, tenant, with_last=False):
            if looked >= COUNTED:
                return Counted(tally=tally, cut=True)
            looked += 1
            if matches(query.filter, row.letter):
                tally.add(row.letter)
        return Counted(tally=tally, cut=False)

    async def total(self, kind: Kind, tenant: str) -> int:
        """Return how many there are."""
        if kind == "job":
            return await self._failed.count_failed(tenant)
        return await self._deliveries.count_dead(tenant)

    async def _walk(self, query: Query, tenant: str, *, with_last: bool) -> AsyncIterator[Row]:
        after = max(query.place, query.filter.start)
        before = query.filter.died_before
        async for row in walk(
            self._reader(query.kind, tenant, with_last=with_last),
            self._partitions,
            _place_of,
            after=after,
        ):
            if before is not None and row.letter.died_at >= before:
                return
            yield row

    def _reader(self, kind: Kind, tenant: str, *, with_last: bool) -> Read[Row]:
        if kind == "delivery":
            return cast("Read[Row]", read_dead(self._deliveries, tenant, with_last=with_last))

        async def read(partition: int, after: Place) -> Page[Row]:
            rows, reached = await self._failed.list_failed(
                partition, tenant=tenant, after=after, limit=PAGE
            )
            return Page(rows=rows, reached=reached)

        return read


def _place_of(row: Row) -> Place:
    return row.letter.place


def job_of(letter: Letter) -> tuple[str | None, str | None]:
    """Return the job that a dead letter is about and the job's type, as far as it tells."""
    job, kind = letter.tags.get(JOB_TAG), letter.tags.get(TYPE_TAG)
    return (job if isinstance(job, str) else None), (kind if isinstance(kind, str) else None)
