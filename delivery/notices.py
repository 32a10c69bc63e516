"""Notices to the operator: that a delivery died, that a URL is called no more.

A notice is written by the very script that buries or disables, into a list of its partition that is
bounded. A delivery process makes of each a delivery to the operator's endpoint, which the engine
sends like any other. Its identifier is derived from the notice, so that a notice which is moved
twice is one delivery.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from config.clock import rfc3339
from config.ids import derived_id, partition_of
from config.scripts import Call, load_script, partition_prefix
from config.sections import OperatorSettings
from config.store import Store
from delivery.egress import Destination, Policy, parse_destination
from delivery.endpoints import Registration, register, url_hash
from delivery.errors import DeliveryError, DestinationRefused
from delivery.models import Message
from delivery.sealing import KeyRing
from delivery.store import DeliveryStore
from delivery.told import Told, tell_for_ever

_log = logging.getLogger("delivery.notices")

Event = Literal["endpoint.disabled", "delivery.exhausted"]
"""What the operator is told: a URL answered 410 and is called no more; a delivery died."""


class OperatorUnusable(DeliveryError):
    """The operator's URL is one that may not be called; the message names the setting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What happened to a delivery.

    Attributes:
        event: what happened.
        at: when, µs.
        delivery: which it happened to, or whose answer it was.
        origin: of the endpoint.
        attempts: that were made.
        last_status: the last answer's status code, if there was one.
        tags: opaque JSON of who sent it.
    """

    event: Event
    at: int
    delivery: str
    endpoint: str
    origin: str
    tenant: str
    reason: str
    attempts: int
    last_status: int | None
    tags: Mapping[str, Any]

    @classmethod
    def decode(cls, kept: bytes) -> Notice:
        """Return the notice that a script kept.

        Raises:
            ValueError, KeyError: it is none.
        """
        members = json.loads(kept)
        if members["event"] not in get_args(Event):
            raise ValueError(f"no such event: {members['event']}")
        return cls(
            event=members["event"],
            at=int(members["at"]),
            delivery=members["delivery"],
            endpoint=members["endpoint"],
            origin=members["origin"],
            tenant=members["tenant"],
            reason=members["reason"],
            attempts=members["attempts"],
            last_status=members.get("status"),
            tags=json.loads(members["tags"]),
        )

    def body(self) -> bytes:
        """Return what is sent: compact UTF-8 JSON, the same however often it is rendered."""
        members = {
            "type": self.event,
            "timestamp": rfc3339(self.at),
            "data": {
                "deliveryId": self.delivery,
                "endpointId": self.endpoint,
                "origin": self.origin,
                "tenant": self.tenant,
                "reason": self.reason,
                "attempts": self.attempts,
                "lastStatusCode": self.last_status,
                "tags": self.tags,
            },
        }
        return json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """Whom notices are for."""

    tenant: str
    destination: Destination


def operator_of(settings: OperatorSettings, policy: Policy) -> Operator | None:
    """Return whom the settings name, None if nobody.

    Raises:
        OperatorUnusable: the URL may not be called.
    """
    if not settings.url:
        return None
    try:
        destination = parse_destination(settings.url, policy)
    except DestinationRefused as error:
        raise OperatorUnusable(f"operator.url: {error.detail}") from error
    return Operator(tenant=settings.tenant, destination=destination)


class Notices:
    """Moves notices to the operator's endpoint."""

    def __init__(
        self, store: Store, deliveries: DeliveryStore, operator: Operator | None, ring: KeyRing
    ) -> None:
        """Move what `store` keeps to `operator`; None: see to it that nothing is kept."""
        self._store = store
        self._deliveries = deliveries
        self._operator = operator
        self._ring = ring
        self._told = Told(store, deliveries.partitions, "operator:notices")
        self._has_begun = False

    async def run(self) -> None:
        """Say whom to tell, then move what comes, for ever, within about a second."""
        await tell_for_ever(self._begin_and_move, "notices")

    async def _begin_and_move(self) -> int:
        if not self._has_begun:
            await self.begin()
            self._has_begun = True
        return await self.move(self._operator) if self._operator else 0

    async def begin(self) -> None:
        """Register the operator's endpoint and have every partition know it.

        Raises:
            StoreError: to be asked again.
            TooManyEndpoints: the operator's tenant has no room for it.
        """
        if self._operator is None:
            await self._name_operator("")
            return
        registration = self._registration(self._operator)
        await self._deliveries.register_endpoint(registration)
        await self._name_operator(registration.id)

    async def move(self, operator: Operator) -> int:
        """Make deliveries of the oldest notices; return the most that a partition had.

        Raises:
            StoreError: what was not moved is moved later; what was is not moved again.
        """

        async def owe(kept: list[bytes]) -> None:
            for each in kept:
                await self._owe(each, operator)

        return await self._told.move(owe)

    async def _owe(self, kept: bytes, operator: Operator) -> None:
        try:
            message = self._message(Notice.decode(kept), operator)
        except (ValueError, KeyError, TypeError):
            # It can never be sent; the log keeps what it was.
            _log.exception("delivery.notice_unreadable", extra={"notice": kept.decode("latin-1")})
            return
        try:
            await self._deliveries.enqueue(message)
        except KeyError:
            # The endpoint was removed meanwhile.
            await self.begin()
            await self._deliveries.enqueue(message)

    def _registration(self, operator: Operator) -> Registration:
        partitions = self._deliveries.partitions
        return register(operator.tenant, operator.destination, self._ring, partitions)

    def _message(self, notice: Notice, operator: Operator) -> Message:
        """Return the message that tells of `notice`, the same however often it is made."""
        endpoint = self._registration(operator).id
        message_id = derived_id(
            "msg",
            partition_of(endpoint),
            notice.event,
            notice.delivery,
            notice.endpoint,
            str(notice.at),
        )
        url = operator.destination.url
        return Message(
            id=message_id,
            endpoint=endpoint,
            tenant=operator.tenant,
            url=self._ring.seal(url.encode(), row=message_id),
            url_hash=url_hash(url),
            tags=json.dumps({"event": notice.event}),
            body=notice.body(),
        )

    async def _name_operator(self, endpoint: str) -> None:
        script = load_script("delivery", "name_operator")
        await self._store.run_all(
            [
                Call(script, partition_prefix(each), (endpoint,))
                for each in range(self._deliveries.partitions)
            ]
        )
