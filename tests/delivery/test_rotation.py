"""Secrets of endpoints in the store: made when first needed, changed by one write or not at all."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import get_args

import pytest

from config.clock import SECOND, SystemClock
from config.ids import new_id
from config.store import Store
from delivery.egress import parse_destination
from delivery.endpoints import Endpoint, Registration, open_secrets, register, seal_secrets
from delivery.errors import RotationContended, SealError
from delivery.models import Scheme
from delivery.rotation import change_secrets
from delivery.secrets import Secret, Secrets
from delivery.signing import SECRETS_OF, check_secret
from delivery.store import DeliveryStore
from tests.delivery.test_store import POLICY, RING, claim, enqueue, message, wanted

DESTINATION = parse_destination("https://a.example/hook", POLICY)
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)


@pytest.fixture
def deliveries(store: Store, partitions: int) -> DeliveryStore:
    return DeliveryStore(store, partitions)


def registration(deliveries: DeliveryStore, scheme: Scheme = "v1") -> Registration:
    return register("t1", DESTINATION, RING, deliveries.partitions, scheme)


@pytest.fixture
async def endpoint(deliveries: DeliveryStore) -> Endpoint:
    return (await deliveries.register_endpoint(registration(deliveries)))[0]


def opened(endpoint: Endpoint, scheme: Scheme = "v1") -> Secrets:
    return open_secrets(endpoint.secrets[scheme], endpoint.id, RING)


def rotated(text: str) -> Secrets:
    return Secrets(newest=Secret(text=text))


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_registering_makes_the_secrets_that_are_missing(
    deliveries: DeliveryStore, scheme: Scheme
) -> None:
    first, made = await deliveries.register_endpoint(registration(deliveries))
    assert (made, set(first.secrets)) == (True, {"v1"})
    for _ in range(2):
        again, made = await deliveries.register_endpoint(registration(deliveries, scheme))
        assert not made
        assert set(again.secrets) == {"v1", *SECRETS_OF[scheme]}
        assert again.secrets["v1"] == first.secrets["v1"]
        check_secret(scheme, opened(again, scheme).newest.text)
    kept = await deliveries.read_endpoint(first.id)
    assert kept == again


async def test_the_first_registration_may_ask_for_any_scheme(deliveries: DeliveryStore) -> None:
    made, is_new = await deliveries.register_endpoint(registration(deliveries, "v1a"))
    assert (is_new, set(made.secrets)) == (True, {"v1", "v1a"})


async def test_a_claim_hands_out_what_there_is(deliveries: DeliveryStore) -> None:
    await deliveries.register_endpoint(registration(deliveries, "x-signature"))
    [identifier] = await enqueue(deliveries, "a.example")
    [claimed] = await claim(deliveries, wanted(1))
    assert (claimed.id, claimed.scheme) == (identifier, "v1")
    assert set(claimed.secrets) == {"v1", "x-signature"}
    endpoint = await deliveries.read_endpoint(claimed.endpoint)
    assert endpoint is not None
    assert claimed.secrets == endpoint.secrets


async def test_a_delivery_keeps_its_scheme_and_what_led_to_it(deliveries: DeliveryStore) -> None:
    endpoint = registration(deliveries, "v1a")
    await deliveries.register_endpoint(endpoint)
    made = message(endpoint)
    await deliveries.enqueue(replace(made, scheme="v1a", trigger="test"))
    [claimed] = await claim(deliveries, wanted(1))
    assert (claimed.scheme, claimed.trigger) == ("v1a", "test")


async def test_a_change_is_made_of_what_was_read(
    deliveries: DeliveryStore, endpoint: Endpoint
) -> None:
    old = endpoint.secrets["v1"]
    new, other = (seal_secrets(rotated(text), endpoint.id, RING) for text in ("new", "other"))
    for _ in range(2):  # the client may ask again
        found = await deliveries.replace_secrets(endpoint.id, "v1", old=old, new=new)
        assert found is not None
        assert (found[0].secrets["v1"], found[1]) == (new, True)
    stale = await deliveries.replace_secrets(endpoint.id, "v1", old=old, new=other)
    assert stale is not None
    assert (stale[0].secrets["v1"], stale[1]) == (new, False)
    first = await deliveries.replace_secrets(endpoint.id, "v1a", old=b"", new=other)
    assert first is not None
    assert (first[0].secrets, first[1]) == ({"v1": new, "v1a": other}, True)


async def test_an_endpoint_that_is_not_there_is_not_made(
    deliveries: DeliveryStore, endpoint: Endpoint
) -> None:
    unknown = new_id("ep", 0, 0)
    assert await deliveries.replace_secrets(unknown, "v1", old=b"", new=b"new") is None
    assert await deliveries.read_endpoint(unknown) is None


async def test_changes_at_once_are_all_made(deliveries: DeliveryStore, endpoint: Endpoint) -> None:
    now = SystemClock().now()
    first = opened(endpoint).newest.text

    async def rotate(text: str) -> None:
        def change(known: Secrets | None) -> Secrets:
            assert known is not None
            return known.rotated(text, now=now, overlap=3600 * SECOND)

        assert await change_secrets(deliveries, RING, endpoint, "v1", change) is not None

    await asyncio.gather(*(rotate(text) for text in ("a", "b", "c")))
    kept = await deliveries.read_endpoint(endpoint.id)
    assert kept is not None
    assert set(opened(kept).in_force(now)) == {first, "a", "b", "c"}


async def test_a_change_to_nothing_else_writes_nothing(
    deliveries: DeliveryStore, endpoint: Endpoint
) -> None:
    for scheme in SCHEMES:
        same = await change_secrets(deliveries, RING, endpoint, scheme, lambda known: known)
        assert same == endpoint
    assert await deliveries.read_endpoint(endpoint.id) == endpoint


async def test_whoever_is_always_late_gives_up(
    deliveries: DeliveryStore, endpoint: Endpoint
) -> None:
    class Contended(DeliveryStore):
        async def replace_secrets(
            self, endpoint_id: str, scheme: Scheme, *, old: bytes, new: bytes
        ) -> tuple[Endpoint, bool] | None:
            sealed = seal_secrets(rotated("somebody else's"), endpoint_id, RING)
            current = await self.read_endpoint(endpoint_id)
            assert current is not None
            await super().replace_secrets(
                endpoint_id, scheme, old=current.secrets[scheme], new=sealed
            )
            return await super().replace_secrets(endpoint_id, scheme, old=old, new=new)

    contended = Contended(deliveries._store, deliveries.partitions)  # noqa: SLF001
    with pytest.raises(RotationContended):
        await change_secrets(contended, RING, endpoint, "v1", lambda _: rotated("mine"))
    kept = await deliveries.read_endpoint(endpoint.id)
    assert kept is not None
    assert opened(kept).newest.text == "somebody else's"


def test_secrets_open_for_their_endpoint_only() -> None:
    sealed = seal_secrets(rotated("text"), "ep_1", RING)
    assert open_secrets(sealed, "ep_1", RING) == rotated("text")
    with pytest.raises(SealError):
        open_secrets(sealed, "ep_2", RING)
