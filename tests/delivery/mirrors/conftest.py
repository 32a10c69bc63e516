"""An endpoint in tests that is mirrored in every other partition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from config.ids import choose_partition, derived_id, partition_of
from config.store import Store
from delivery.endpoints import Endpoint
from delivery.mirrors import MirrorNews
from delivery.models import Bury, Claimed
from tests.delivery.replay_side import OTHER_URL, Side, side_of
from tests.delivery.test_deadletters import bury
from tests.delivery.test_store import (
    RING,
    over,
    registration,
)

PARTITIONS = 4
KEPT = 1_000
HOST = "other.example"


@pytest.fixture
def side(store: Store) -> Side:
    """Return deliveries in several partitions, and what replays them."""
    return side_of(store, PARTITIONS)


@pytest.fixture
def news(store: Store, side: Side) -> MirrorNews:
    return MirrorNews(store, side.deliveries, RING)


async def send_on(side: Side) -> list[str]:
    """Replay dead letters of all partitions to the other URL; return their identifiers."""
    dead = [each for host in host_everywhere() for each in await bury(side.deliveries, host, 5)]
    replay = await side.create(to_url=OTHER_URL)
    assert (await side.carry_out(replay)).state == "completed"
    return dead


def host_everywhere() -> list[str]:
    """Return a host of each partition."""
    hosts = {
        choose_partition(host, PARTITIONS): host for host in map("{}.example".format, "abcdefghij")
    }
    return [hosts[at] for at in range(PARTITIONS)]


def own_id() -> str:
    return registration(HOST, PARTITIONS).id


def mirror_ids() -> list[str]:
    own = registration(HOST, PARTITIONS)
    return [
        derived_id("ep", at, own.tenant, own.origin)
        for at in range(PARTITIONS)
        if at != partition_of(own.id)
    ]


async def read(side: Side, endpoint_id: str) -> Endpoint:
    found = await side.deliveries.read_endpoint(endpoint_id)
    assert found is not None
    return found


async def disabled(side: Side, endpoint_id: str) -> list[tuple[str, str]]:
    """Return what an endpoint knows of disabled URLs: each opened, and why."""
    kept = (await read(side, endpoint_id)).disabled
    return [(RING.open(each.url, row=each.row).decode(), each.reason) for each in kept]


def at_mirrors(claimed: Sequence[Claimed]) -> list[Claimed]:
    return [each for each in claimed if each.endpoint != own_id()]


async def answer_gone(side: Side, claimed: Claimed) -> None:
    lost = await side.deliveries.record([replace(over(claimed, Bury(reason="gone")), status=410)])
    assert not lost
