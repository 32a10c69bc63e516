"""Mirrors: endpoints away from their host's partition, for deliveries that were sent on to it.

All keys of a delivery are in one partition, which its identifier names. When a replay sends it to
another URL, the endpoint of that URL may belong to another partition. Then it is mirrored where the
delivery is: under an identifier of that partition, with the same secrets and under the same rules
of its operator. How it does, its limit and its breaker, a mirror finds out for itself. It is not
listed.
"""

from __future__ import annotations

from config.ids import derived_id, partition_of
from delivery.endpoints import Endpoint, Mirror
from delivery.endpointstore import EndpointStore
from delivery.sealing import KeyRing


def mirror_of(own: Endpoint, partition: int, ring: KeyRing) -> Mirror:
    """Return the mirror of an endpoint in `partition`, its secrets sealed anew.

    Raises:
        SealError: no key of the ring opens them.
    """
    mirror_id = _mirror_id(own, partition)
    return Mirror(
        id=mirror_id,
        own=own,
        secrets={
            scheme: ring.seal(ring.open(sealed, row=own.id), row=mirror_id)
            for scheme, sealed in own.secrets.items()
        },
    )


async def refresh_mirrors(endpoints: EndpointStore, own: Endpoint, ring: KeyRing) -> None:
    """Make the mirrors that an endpoint has like it.

    Raises:
        SealError: no key of the ring opens its secrets.
    """
    elsewhere = [mirror_of(own, at, ring) for at in _elsewhere(endpoints, own)]
    await endpoints.mirror(elsewhere, make=False)


async def delete_mirrors(endpoints: EndpointStore, own: Endpoint) -> bool:
    """Forget the mirrors that an endpoint has; tell whether none is left, being in use."""
    gone = [
        await endpoints.delete_endpoint(_mirror_id(own, at)) for at in _elsewhere(endpoints, own)
    ]
    return all(gone)


def _elsewhere(endpoints: EndpointStore, own: Endpoint) -> list[int]:
    return [at for at in range(endpoints.partitions) if at != partition_of(own.id)]


def _mirror_id(own: Endpoint, partition: int) -> str:
    return derived_id("ep", partition, own.tenant, own.origin)
