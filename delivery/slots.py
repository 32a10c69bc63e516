"""The slots of a delivery process: how many attempts it may run, and who fills them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from delivery.models import Claimed


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How the slots of a process are divided; each share is at least one slot.

    Attributes:
        total: attempts at once.
        unproven: for endpoints without a recent success, so that hanging hosts cannot fill the
            process. A tenant holds no more of them than it leaves free.
        replays: for what is replayed, so that slots are left for what is live.
        per_tenant: for one tenant while others wait.
        per_endpoint: for one endpoint.
    """

    total: int
    unproven: int
    replays: int
    per_tenant: int
    per_endpoint: int

    @classmethod
    def of(cls, total: int) -> Shares:
        """Return three quarters for replays, a quarter for the unproven and for a tenant, an eighth
        for an endpoint.
        """
        return cls(
            total=total,
            unproven=max(1, total // 4),
            replays=max(1, 3 * total // 4),
            per_tenant=max(1, total // 4),
            per_endpoint=max(1, total // 8),
        )


class Slots:
    """Who fills the slots now. Not thread-safe: it belongs to one event loop."""

    def __init__(self, shares: Shares) -> None:
        self.shares = shares
        self._held: dict[tuple[str, str], Claimed] = {}
        self._endpoints: Counter[str] = Counter()
        self._tenants: Counter[str] = Counter()
        self._suspects = 0
        self._unproven: Counter[str] = Counter()
        self._replays = 0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def held(self) -> Collection[Claimed]:
        """What is being attempted."""
        return self._held.values()

    @property
    def free(self) -> int:
        """How many more attempts may start."""
        return self.shares.total - len(self._held)

    @property
    def free_for_unproven(self) -> int:
        """How many more may start for endpoints without a recent success."""
        return max(0, min(self.free, self.shares.unproven - self._unproven.total()))

    @property
    def free_for_replays(self) -> int:
        """How many more may start of what is replayed."""
        return max(0, min(self.free, self.shares.replays - self._replays))

    @property
    def may_take_suspect(self) -> bool:
        """At most one suspect at a time: if the process dies of it, only that one is to blame."""
        return self._suspects == 0

    def fill(self, claimed: Claimed) -> None:
        """Give `claimed` a slot."""
        # Claims count per partition: only with the delivery are they unique.
        self._held[claimed.id, claimed.claim] = claimed
        self._endpoints[claimed.endpoint] += 1
        self._tenants[claimed.tenant] += 1
        self._suspects += claimed.suspect
        if not claimed.proven:
            self._unproven[claimed.tenant] += 1
        self._replays += claimed.trigger == "replay"

    def empty(self, delivery_id: str, claim: str) -> None:
        """Take back the slot of the attempt under `claim`; one that holds none is no matter."""
        claimed = self._held.pop((delivery_id, claim), None)
        if claimed is None:
            return
        self._suspects -= claimed.suspect
        self._replays -= claimed.trigger == "replay"
        counters = [(self._endpoints, claimed.endpoint), (self._tenants, claimed.tenant)]
        if not claimed.proven:
            counters.append((self._unproven, claimed.tenant))
        for counter, name in counters:
            counter[name] -= 1
            if not counter[name]:
                del counter[name]

    def unproven_held(self, parts: int) -> dict[str, float]:
        """Return what each tenant holds of the slots for the unproven, divided by `parts`."""
        return {name: count / parts for name, count in self._unproven.items()}

    def endpoints_left(self, at_most: int) -> dict[str, int]:
        """Return the slots left of each endpoint's share, where fewer than `at_most` are."""
        return _left(self._endpoints, self.shares.per_endpoint, at_most)

    def tenants_left(self, at_most: int) -> dict[str, int]:
        """Return the slots left of each tenant's share, where fewer than `at_most` are."""
        return _left(self._tenants, self.shares.per_tenant, at_most)


def _left(taken: Counter[str], share: int, at_most: int) -> dict[str, int]:
    return {name: share - count for name, count in taken.items() if share - count < at_most}
