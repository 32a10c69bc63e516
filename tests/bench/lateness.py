"""How late callbacks arrive that are enqueued on an open schedule."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count

from tests.bench.backlog import Backlog, Target, body_of
from tests.bench.bench import open_loop
from tests.bench.surroundings import SinkHandle

_BODY = 500


class Schedule:
    """Callbacks to `targets` in turn, each of which says when it was due."""

    def __init__(self, backlog: Backlog, targets: Sequence[Target], rate: float) -> None:
        self._backlog = backlog
        self._targets = targets
        self._rate = rate
        self._numbers = count()

    async def run(self, seconds: float) -> None:
        """Enqueue for so long, however long each takes."""
        await open_loop(rate=self._rate, seconds=seconds, act=self._add)

    async def _add(self, due: float) -> None:
        target = self._targets[next(self._numbers) % len(self._targets)]
        await self._backlog.add_one(target, body_of(_BODY, due=due))


async def lateness(to: SinkHandle) -> list[float]:
    """Return how many ms after it was due each callback arrived that the sink has kept."""
    kept = (await to.tell(take=True))["kept"]
    told = [(moment, json.loads(body)["data"]) for moment, _, body in kept]
    return [1e3 * (moment - data["due"]) for moment, data in told if "due" in data]
