"""Mirrors: endpoints away from their host's partition, for deliveries that were sent on to it.

All keys of a delivery are in one partition, which its identifier names. When a replay sends it to
another URL, the endpoint of that URL may belong to another partition. Then it is mirrored where the
delivery is: under an identifier of that partition, with the same secrets and under the same rules
of its operator. How it does, its limit and its breaker, a mirror finds out for itself. It is not
listed, and people see the endpoint that it is like.

Of that endpoint's rate, of the most that an operator lets its limit be, and of its host's slots,
the mirrors have an eighth together. A URL that answers 410 to one of them is disabled for all,
within about a second: scripts write what was answered, and that an operator changed something, into
a list of their partition, and delivery processes carry it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from config.ids import derived_id, is_id, partition_of
from config.store import Store
from delivery.endpoints import DisabledUrl, Endpoint, Mirror
from delivery.endpointstore import EndpointStore
from delivery.errors import SealError
from delivery.models import Scheme
from delivery.sealing import KeyRing
from delivery.told import Told, tell_for_ever

_log = logging.getLogger("delivery.mirrors")

MIRRORED: Final = 1 / 8
"""Of an endpoint's rate and limit, and of its host's slots: what its mirrors have together."""


async def make_mirror(
    endpoints: EndpointStore, own: Endpoint, partition: int, ring: KeyRing
) -> str:
    """Mirror an endpoint in `partition`; return the mirror's identifier.

    There is no mirror if the endpoint was deleted meanwhile.

    Raises:
        SealError: no key of the ring opens its secrets.
    """
    mirror = _mirror_of(own, partition, endpoints.partitions, ring, _opened(own, ring))
    await endpoints.mirror([mirror], make=True)
    # News went past a mirror that was not there yet; from here on they reach it.
    others = endpoints.partitions - 1
    lent = await endpoints.lend_endpoint(own.id, others=others, part=1 - MIRRORED)
    if lent is None:
        await endpoints.delete_endpoint(mirror.id)
    else:
        mirror = _mirror_of(lent, partition, endpoints.partitions, ring, _opened(lent, ring))
        await endpoints.mirror([mirror], make=False)
    return mirror.id


async def refresh_mirrors(endpoints: EndpointStore, own: Endpoint, ring: KeyRing) -> None:
    """Make the mirrors that an endpoint has like it.

    Where no key of the ring opens its secrets, the mirrors keep theirs: what an operator says does
    not wait for a key.
    """
    if not own.may_have_mirrors:
        return
    try:
        opened = _opened(own, ring)
    except SealError:
        _log.exception("delivery.secrets_not_mirrored", extra={"endpoint": own.id})
        opened = {}
    elsewhere = _elsewhere(endpoints, own)
    mirrors = [_mirror_of(own, at, endpoints.partitions, ring, opened) for at in elsewhere]
    await endpoints.mirror(mirrors, make=False)


async def delete_with_mirrors(endpoints: EndpointStore, own: Endpoint) -> bool:
    """Forget an endpoint and its mirrors; False when one of them is in use, or about to be."""
    gone = [
        await endpoints.delete_endpoint(_mirror_id(own, at)) for at in _elsewhere(endpoints, own)
    ]
    # Whoever has lent it since may have made mirrors where none was found.
    return all(gone) and await endpoints.delete_endpoint(own.id, not_lent_since=own.read_at)


class MirrorNews:
    """What endpoints and their mirrors tell each other."""

    def __init__(self, store: Store, endpoints: EndpointStore, ring: KeyRing) -> None:
        self._endpoints = endpoints
        self._ring = ring
        self._told = Told(store, endpoints.partitions, "mirrors:news")

    async def run(self) -> None:
        """Carry what there is, for ever, within about a second; in one partition there is none."""
        if self._endpoints.partitions > 1:
            await tell_for_ever(self.move, "news of mirrors")

    async def move(self) -> int:
        """Carry the oldest news; return the most that a partition had.

        Raises:
            StoreError: what was not carried is carried later; twice is as once.
        """
        return await self._told.move(self._carry)

    async def _carry(self, kept: Sequence[bytes]) -> None:
        for own_id, urls in self._by_endpoint(kept).items():
            own = await self._endpoints.learn_urls(own_id, urls)
            # Else it was deleted, and its mirrors with it.
            if own is not None:
                await refresh_mirrors(self._endpoints, own, self._ring)

    def _by_endpoint(self, news: Sequence[bytes]) -> Mapping[str, Sequence[DisabledUrl]]:
        """Return for each endpoint that is told of the URLs that answered 410."""
        found: dict[str, list[DisabledUrl]] = {}
        for each in news:
            try:
                own_id, url = self._read(each)
            except ValueError:
                # It can never be carried; the log keeps what it was.
                _log.exception("delivery.news_unreadable", extra={"news": each.decode("latin-1")})
                continue
            urls = found.setdefault(own_id, [])
            if url is not None:
                urls.append(self._sealed_anew(url))
        return found

    def _read(self, news: bytes) -> tuple[str, DisabledUrl | None]:
        """Return which endpoint is told of, and the URL that answered 410, if any did.

        Raises:
            ValueError: it is none of this gateway's.
        """
        own, *url = news.split(b" ", 2)
        own_id = own.decode()
        if not is_id("ep", own_id) or partition_of(own_id) >= self._endpoints.partitions:
            raise ValueError("no endpoint")
        if len(url) < 2:
            return own_id, None
        digest, entry = url
        return own_id, DisabledUrl.decode(digest.decode(), entry)

    def _sealed_anew(self, url: DisabledUrl) -> DisabledUrl:
        """Return it under the first key: what is on its way was not found when keys changed."""
        try:
            opened = self._ring.open(url.url, row=url.row)
        except SealError:
            return url
        return replace(url, url=self._ring.seal(opened, row=url.row))


def _opened(own: Endpoint, ring: KeyRing) -> Mapping[Scheme, bytes]:
    """Return its secrets by scheme.

    Raises:
        SealError: no key of the ring opens them.
    """
    return {scheme: ring.open(sealed, row=own.id) for scheme, sealed in own.secrets.items()}


def _mirror_of(
    own: Endpoint, partition: int, partitions: int, ring: KeyRing, opened: Mapping[Scheme, bytes]
) -> Mirror:
    """Return the mirror of an endpoint in `partition`, with these secrets sealed anew."""
    mirror_id, others = _mirror_id(own, partition), partitions - 1
    part = MIRRORED / others
    bounded = own
    if own.max_limit is not None:
        bounded = replace(own, max_limit=max(1, int(own.max_limit * part)))
    return Mirror(
        id=mirror_id,
        own=bounded,
        part=part,
        others=others,
        secrets={scheme: ring.seal(each, row=mirror_id) for scheme, each in opened.items()},
    )


def _elsewhere(endpoints: EndpointStore, own: Endpoint) -> list[int]:
    return [at for at in range(endpoints.partitions) if at != partition_of(own.id)]


def _mirror_id(own: Endpoint, partition: int) -> str:
    return derived_id("ep", partition, own.tenant, own.origin)
