"""Sealing anew: everything in the store, nothing lost beside writers, and what was left is told."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from config.ids import new_id
from config.scripts import Call, load_script, partition_prefix
from config.store import Store
from delivery.models import Bury, Deliver
from delivery.rewrap import Sealed, rewrap, tally
from delivery.sealing import KeyRing
from gateway.app import create_app
from gateway.rewrap import SEALED
from tests.delivery.packing import pack
from tests.delivery.test_store import claim, over, wanted
from tests.gateway.conftest import SEALING, Gateway, MakeServices
from tests.gateway.jobs import submit
from tests.gateway.test_api_deliveries import owe

NEW = "two:" + base64.b64encode(b"n" * 32).decode()
BOTH = f"{NEW},{SEALING}"
RING = KeyRing.parse(BOTH)


OTHER = "https://other.example/"


def under(kept: Any) -> set[str]:
    """Return the keys that something is sealed under."""
    return {key_id for counts in kept.values() for key_id in counts}


async def everything(store: Store) -> AsyncIterator[tuple[bytes, bytes]]:
    """Yield all that the store holds, in whatever type: names, with what is in them."""
    client = store.client
    readers: dict[Any, Any] = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"list": lambda name: client.lrange(name, 0, -1),
        b"zset": lambda name: client.zrange(name, 0, -1),
    }
    async for name in client.scan_iter():
        yield name, repr(await readers[await client.type(name)](name)).encode()


async def holders(store: Store, key_id: str) -> list[bytes]:
    """Return the names of whatever holds something sealed under a key."""
    mark = re.compile(rb"(?:b['\"]| )" + key_id.encode() + rb"\.")
    return [name async for name, text in everything(store) if mark.search(text)]


async def filled(gateway: Gateway) -> tuple[str, str, str, str]:
    """Have something of each kind sealed; return an endpoint, its secret, a job and a delivery."""
    async with await gateway.client() as client:
        endpoint = (await client.post("/v1/endpoints", json={"url": OTHER})).json()["id"]
        for scheme in ("v1", "v1a", "x-signature"):
            rotated = await client.post(f"/v1/endpoints/{endpoint}/rotate", json={"scheme": scheme})
            assert rotated.status_code == 200
        secret = (await client.get(f"/v1/endpoints/{endpoint}/secret")).json()["secret"]
        await submit(
            client,
            callbackUrl="https://client.example/hook?key=1",
            callback={"headers": {"x-route": "secret-route"}},
        )
        job, delivery = await owe(client)
        shut = await client.patch(
            f"/v1/endpoints/{endpoint}", json={"disabledUrls": [f"{OTHER}shut?key=1"]}
        )
        assert shut.status_code == 200
        gone = await submit(client, callbackUrl=f"{OTHER}gone?key=1")
        await client.post(f"/v1/jobs/{gone}/cancel")
        replay = await client.post("/v1/replays", json={"all": True, "toUrl": f"{OTHER}to?key=1"})
        assert replay.status_code == 202
    for claimed in await claim(gateway.services.deliveries, wanted(1)):
        if claimed.endpoint == endpoint:
            await gateway.services.deliveries.record([over(claimed, Bury(reason="gone"))])
    return endpoint, secret, job, delivery


async def test_after_it_the_old_key_is_not_needed(
    make_services: MakeServices, store: Store
) -> None:
    old = make_services()
    endpoint, secret, job, delivery = await filled(Gateway(old, create_app(old)))
    assert under(await tally(store, SEALED)) == {"one"}
    assert len(await holders(store, "one")) > 4

    done = await rewrap(store, RING, SEALED)
    kept = await tally(store, SEALED)
    assert under(kept) == {"two"}
    assert all(kept.values()), kept
    assert (done.rewrapped, done.unreadable) == (sum(c["two"] for c in kept.values()), 0)
    assert await holders(store, "one") == []

    services = make_services(GATEWAY_SEALING_KEYS=NEW)
    gateway = Gateway(services, create_app(services))
    async with await gateway.client() as client:
        shown = (await client.get(f"/v1/endpoints/{endpoint}/secret")).json()
        assert shown["secret"] == secret
        disabled = (await client.get(f"/v1/endpoints/{endpoint}")).json()["disabledUrls"]
        assert {each["url"]: each["reason"] for each in disabled} == {
            f"{OTHER}shut?key=1": "operator",
            f"{OTHER}gone?key=1": "gone",
        }
        document = (await client.get(f"/v1/jobs/{job}")).json()
        assert document["callback"]["url"].endswith("?***")
        sent = (await client.get(f"/v1/deliveries/{delivery}")).json()
        assert sent["url"] == document["callback"]["url"]
        assert sent["headers"] == {"x-route": "***"}


async def test_a_callback_that_can_be_sent_no_more_has_nothing_sealed(
    make_services: MakeServices, store: Store
) -> None:
    services = make_services()
    async with await Gateway(services, create_app(services)).client() as client:
        _, delivery = await owe(client)
    [given] = await claim(services.deliveries, wanted(1))
    await services.deliveries.record([over(given, Deliver())])
    assert sum((await tally(store, SEALED))["deliveries"].values()) == 2
    await pack(services.deliveries)
    assert (await tally(store, SEALED))["deliveries"] == {}
    assert (await rewrap(store, RING, SEALED)).unreadable == 0
    kept = await services.deliveries.read(delivery)
    assert kept is not None
    assert kept.state == "delivered"


async def test_a_second_time_there_is_nothing_to_do(
    make_services: MakeServices, store: Store
) -> None:
    services = make_services()
    await filled(Gateway(services, create_app(services)))
    first = await rewrap(store, RING, SEALED)
    before = sorted([each async for each in everything(store)])
    assert first.rewrapped > 0
    assert (await rewrap(store, RING, SEALED)).rewrapped == 0
    assert sorted([each async for each in everything(store)]) == before


async def test_what_no_key_opens_stays_and_is_told(
    make_services: MakeServices, store: Store
) -> None:
    services = make_services()
    endpoint, *_ = await filled(Gateway(services, create_app(services)))
    name = f"{partition_prefix(int(endpoint[3:5]))}ep:{endpoint}"
    lost = KeyRing.parse("lost:" + base64.b64encode(b"l" * 32).decode()).seal(b"x", row=endpoint)
    await store.client.hset(name, "secret:v1", lost)
    done = await rewrap(store, RING, SEALED)
    assert (done.unreadable, done.named) == (1, (endpoint,))
    assert await store.client.hget(name, "secret:v1") == lost
    kept = await tally(store, SEALED)
    assert kept["signing secrets"]["lost"] == 1
    assert under(kept) == {"two", "lost"}


async def test_an_expiring_value_still_expires(make_services: MakeServices, store: Store) -> None:
    services = make_services()
    *_, delivery = await filled(Gateway(services, create_app(services)))
    name = f"{partition_prefix(int(delivery[4:6]))}d:{delivery}"
    await store.client.pexpire(name, 3_600_000)
    await rewrap(store, RING, SEALED)
    assert 0 < await store.client.pttl(name) <= 3_600_000


THINGS = (
    Sealed(
        noun="things",
        name=re.compile(r"thing:(\w+)"),
        fields=("value",),
        row=lambda identifier: identifier,
    ),
)


NOTES = (Sealed(noun="notes", name=re.compile(r"thing:(\w+):notes"), fields=(), row=None, words=3),)


async def test_values_that_name_their_own_row(store: Store) -> None:
    old = KeyRing.parse(SEALING)
    name = f"{partition_prefix(0)}thing:1:notes"
    notes = {str(n): b"17 why row-%d " % n + old.seal(b"x", row=f"row-{n}") for n in range(3)}
    for field, note in {**notes, "3": b"17 why row-3"}.items():
        await store.client.hset(name, field, note)
    done = await rewrap(store, RING, NOTES)
    assert (done.rewrapped, done.unreadable, done.named) == (3, 1, ("1",))
    assert await tally(store, NOTES) == {"notes": {"two": 3, "?": 1}}
    for n in range(3):
        kept = await store.client.hget(name, str(n))
        assert isinstance(kept, bytes)
        since, why, row, sealed = kept.split(b" ", 3)
        assert (since, why, row) == (b"17", b"why", b"row-%d" % n)
        assert KeyRing.parse(NEW).open(sealed, row=row.decode()) == b"x"


async def test_nothing_written_meanwhile_is_lost(store: Store, partitions: int) -> None:
    # Writers that still have the old ring, and one that has the new one, change what is walked
    # through, each on condition that nobody else did, as every sealed value is changed.
    ids = [new_id("thing", at % partitions, 0) for at in range(120)]
    old = KeyRing.parse(SEALING)
    names = {each: f"{partition_prefix(int(each[6:8]))}thing:{each}" for each in ids}
    for each in ids:
        await store.client.hset(names[each], "value", old.seal(b"0", row=each))
    written = dict.fromkeys(ids, 0)
    turned = asyncio.Event()
    is_over = False

    async def write(ring: KeyRing, mine: list[str]) -> None:
        script = load_script("delivery", "reseal")
        at = 0
        while not is_over:
            each = mine[at % len(mine)]
            sealed = await store.client.hget(names[each], "value")
            assert isinstance(sealed, bytes)
            number = int(RING.open(sealed, row=each)) + 1
            fresh = ring.seal(str(number).encode(), row=each)
            prefix = partition_prefix(int(each[6:8]))
            arguments = (f"thing:{each}", "value", sealed, fresh)
            [was_same] = await store.run(Call(script, prefix, arguments))
            if was_same:
                written[each] += 1
            at += 1
            if min(written.values()) > 0:
                turned.set()

    writers = [
        asyncio.create_task(write(old, ids[::2])),
        asyncio.create_task(write(RING, ids[1::2])),
    ]
    await turned.wait()
    for _ in range(5):
        await rewrap(store, RING, THINGS)
    is_over = True
    await asyncio.gather(*writers)
    for each in ids:
        sealed = await store.client.hget(names[each], "value")
        assert isinstance(sealed, bytes)
        assert int(RING.open(sealed, row=each)) == written[each]
    await rewrap(store, RING, THINGS)
    assert await tally(store, THINGS) == {"things": {"two": 120}}


async def test_it_goes_on_where_it_was_cut_off(store: Store, partitions: int) -> None:
    ids = [new_id("thing", at % partitions, 0) for at in range(2_000)]
    old = KeyRing.parse(SEALING)
    for each in ids:
        name = f"{partition_prefix(int(each[6:8]))}thing:{each}"
        await store.client.hset(name, "value", old.seal(b"x", row=each))

    class CutOff(Exception):
        """The process ended."""

    class Interrupted(Store):
        """A store whose connection is gone after a few rounds."""

        rounds = 0

        async def run_all(self, calls: Any) -> list[Any]:
            self.rounds += 1
            if self.rounds > 4:
                raise CutOff
            return await super().run_all(calls)

    with pytest.raises(CutOff):
        await rewrap(Interrupted(store.client, 5), RING, THINGS)
    half = (await tally(store, THINGS))["things"]
    assert half["one"] > 0
    assert half["two"] > 0
    done = await rewrap(store, RING, THINGS)
    assert done.rewrapped == half["one"]
    assert await tally(store, THINGS) == {"things": {"two": 2_000}}
