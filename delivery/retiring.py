"""The retirer: takes down what is too old or too much of deliveries that have ended, and packs what
can be sent no more.

A loop of the delivery process. Every process runs it, and what one has done another does not find;
it does a bounded number in one script, and goes on at once while there is more.
"""

from __future__ import annotations

import asyncio
import logging

from config.clock import Clock
from config.errors import StoreError
from config.ids import random_float
from delivery.bounds import Bound
from delivery.metrics import DeliveryMetrics
from delivery.store import DeliveryStore

_log = logging.getLogger("delivery.retiring")

PAUSE = 1.0
"""Seconds between two looks when there is nothing to do."""

AT_ONCE = 100
"""How many are taken down or packed in one script, which takes a few milliseconds."""

_WARN_AGAIN = 60.0
_WARNED_OF_MOST = 1_000


class Retirer:
    """Keeps what has ended within its bounds."""

    def __init__(self, deliveries: DeliveryStore, clock: Clock, metrics: DeliveryMetrics) -> None:
        self._deliveries = deliveries
        self._metrics = metrics
        self._clock = clock
        self._warned: dict[tuple[str, str, str], float] = {}

    async def run(self) -> None:
        """Look and take down for ever; a store that is away is asked again."""
        while True:
            more = False
            try:
                more = await self.look()
            except StoreError as error:
                _log.warning("delivery.not_retired", extra={"error": str(error)})
            if not more:
                await asyncio.sleep(PAUSE * (0.9 + 0.2 * random_float()))

    async def look(self) -> bool:
        """Look once; return whether there is more to do at once."""
        looks = (await self._deliveries.retire(AT_ONCE)).values()
        for retired in looks:
            for bound in retired.near:
                self._warn(bound)
            for (kind, cause), count in retired.dropped.items():
                _log.info("delivery.retired", extra={"kind": kind, "cause": cause, "count": count})
        return any(retired.more for retired in looks)

    def _warn(self, bound: Bound) -> None:
        """Tell of a bound that is nearly used up, once a minute."""
        now = self._clock.monotonic()
        warned = (bound.kind, bound.tenant, bound.name)
        if now - self._warned.get(warned, -_WARN_AGAIN) < _WARN_AGAIN:
            return
        if len(self._warned) >= _WARNED_OF_MOST:
            self._warned.clear()
        self._warned[warned] = now
        self._metrics.bound_near(bound.kind)
        # Of what was delivered only the record goes, which is what the bound is for.
        level = logging.WARNING if bound.kind == "dead" else logging.INFO
        _log.log(
            level,
            "delivery.bound_nearly_used_up",
            extra={
                "kind": bound.kind,
                "tenant": bound.tenant,
                "bound": bound.name,
                "used": bound.used,
                "allowed": bound.allowed,
            },
        )
