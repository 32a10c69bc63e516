"""Changing an endpoint's secrets: one write each, made of what was read, or made again.

However many change them at once, no secret that somebody was told of is lost on the way.
"""

from __future__ import annotations

from collections.abc import Callable

from delivery.endpoints import Endpoint, open_secrets, seal_secrets
from delivery.errors import RotationContended
from delivery.mirrors import refresh_mirrors
from delivery.models import Scheme
from delivery.sealing import KeyRing
from delivery.secrets import Secrets
from delivery.store import DeliveryStore

Change = Callable[[Secrets | None], Secrets | None]
"""Makes new secrets of those there are; None stands for none."""

_TRIES = 20


async def change_secrets(
    deliveries: DeliveryStore, ring: KeyRing, endpoint: Endpoint, scheme: Scheme, change: Change
) -> Endpoint | None:
    """Change the secrets of `endpoint` for `scheme`; return it as it is now, None if it is gone.

    Args:
        deliveries: where it is.
        ring: opens and seals.
        endpoint: as it was read.
        scheme: whose secrets.
        change: called again when somebody else was faster. Returning what it was given, or None,
            changes nothing.

    Raises:
        SealError: no key of the ring opens what is kept.
        RotationContended: others were faster each time.
    """
    for _ in range(_TRIES):
        kept = endpoint.secrets.get(scheme)
        known = open_secrets(kept, endpoint.id, ring) if kept else None
        wanted = change(known)
        if wanted is None or wanted == known:
            return endpoint
        sealed = seal_secrets(wanted, endpoint.id, ring)
        found = await deliveries.replace_secrets(endpoint.id, scheme, old=kept or b"", new=sealed)
        if found is None:
            return None
        endpoint, is_done = found
        if is_done:
            await refresh_mirrors(deliveries, endpoint, ring)
            return endpoint
    raise RotationContended(f"the secrets of {endpoint.id} are changed again and again")
