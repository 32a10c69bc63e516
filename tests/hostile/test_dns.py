"""The row of DNS, and what was taken in under other rules: through a delivery process.

The lookup and the sockets are the test's; all between them is the product.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from prometheus_client import CollectorRegistry

from config.clock import StoreClock, SystemClock
from config.ids import derived_id
from config.store import Store
from delivery.attempt import Rules
from delivery.egress import Policy, parse_destination
from delivery.endpoints import register, url_hash
from delivery.guard import AddressInfo, Guard
from delivery.letters import START
from delivery.metrics import DeliveryMetrics
from delivery.models import Delivery, Message
from delivery.resolver import PolicyResolver
from delivery.retry import Schedule
from delivery.sender import Sender
from delivery.transport import AiohttpTransport, Deadlines, Gate
from delivery.worker import DeliveryWorker, Pace
from tests.delivery.conftest import StartReceiver
from tests.delivery.test_sender import OK, answers
from tests.delivery.test_store import RING
from tests.delivery.test_worker import Watched

PUBLIC = "93.184.215.14"
PRODUCTION = Policy()
FOR_EVER = 1_000.0
"""Seconds for a look-up: what waits for one must not end by itself."""


@dataclass(slots=True)
class Network:
    """Names with the answers they give, one after the other, and the sockets that were asked for.

    Attributes:
        records: the answers of each name; the last one repeats.
        reach: the address and port of this machine that any other stands for.
        looked_up: each name that was asked for, as often as it was.
        dialled: each address that a socket was asked for.
        waiting: how many wait for a name that never answers.
    """

    records: dict[str, list[list[str]]]
    reach: int | None = None
    looked_up: list[str] = field(default_factory=list)
    dialled: list[str] = field(default_factory=list)
    waiting: int = 0

    async def look_up(self, host: str) -> Sequence[str]:
        """Answer for `host`."""
        self.looked_up.append(host)
        answers = self.records.get(host)
        if answers is None:
            self.waiting += 1
            await asyncio.Event().wait()
            raise AssertionError
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def make_socket(self, address: AddressInfo) -> socket.socket:
        """Make a socket, which nothing is sent over but to this machine."""
        self.dialled.append(address[4][0])
        if self.reach is None:
            raise OSError(errno.ENETUNREACH, "no network in this test")
        return _Led(self.reach)


class _Led(socket.socket):
    """A socket that reaches a port of this machine, whatever address it is told."""

    def __init__(self, port: int) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        self._port = port

    def connect(self, _address: object) -> None:
        super().connect(("127.0.0.1", self._port))


@dataclass(slots=True)
class Process:
    """A delivery process on the real store."""

    store: Store
    network: Network
    policy: Policy
    deliveries: Watched

    async def owe(self, url: str, tenant: str = "acme") -> str:
        """Owe a callback to `url`, as a submission under another policy would; return its id."""
        anything = Policy(allow_http=True, allow_loopback=True, ports=None)
        try:
            destination = parse_destination(url, self.policy)
        except Exception:  # noqa: BLE001  taken in when the rules were others
            destination = parse_destination("https://once.example/", anything)
        endpoint = register(tenant, destination, RING, self.deliveries.partitions)
        await self.deliveries.register_endpoint(endpoint)
        identifier = derived_id("msg", 0, url)
        message = Message(
            id=identifier,
            endpoint=endpoint.id,
            tenant=tenant,
            url=RING.seal(url.encode(), row=identifier),
            url_hash=url_hash(url),
            tags="{}",
            body=b"{}",
        )
        assert await self.deliveries.enqueue(message)
        return identifier

    async def attempted(self, delivery: str, times: int = 1) -> Delivery:
        """Return a delivery once so many attempts at it are recorded."""
        await self.deliveries.until(
            lambda: [each.id for each in self.deliveries.ended].count(delivery) >= times
        )
        found = await self.deliveries.read(delivery)
        assert found is not None
        return found

    async def ended(self, delivery: str) -> tuple[str, str]:
        """Return how a delivery ended, by its first attempt."""
        found = await self.attempted(delivery)
        return found.state, found.reason or ""

    async def dead_letters(self) -> list[tuple[str, str, int, str]]:
        """Return each dead letter: its identifier, reason, attempts, and the last one's outcome."""
        found, _ = await self.deliveries.list_dead(
            0, tenant="acme", after=START, limit=100, with_last=True
        )
        return [
            (each.letter.id, each.letter.reason, each.attempts, (each.last or {})["outcome"])
            for each in found
        ]


@asynccontextmanager
async def process(
    store: Store,
    network: Network,
    policy: Policy = PRODUCTION,
    *,
    gaps: tuple[float, ...] = (0.0, 3600.0),
    host_limit: int = 1_000,
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[Process]:
    """Run a delivery process."""
    deliveries = Watched(store, 1)
    deliveries.retention = replace(deliveries.retention, host_limit=host_limit)
    clock = StoreClock(SystemClock())
    async with AsyncExitStack() as stack:
        resolver = PolicyResolver(network.look_up, policy, deadline=FOR_EVER)
        stack.push_async_callback(resolver.close)
        transport = await stack.enter_async_context(
            AiohttpTransport(
                gate=Gate(check=Guard(policy=policy), resolver=resolver),
                ssl_context=ssl_context,
                socket_factory=network.make_socket,
                deadlines=Deadlines(dns=FOR_EVER, total=FOR_EVER),
            )
        )
        worker = DeliveryWorker(
            store=store,
            deliveries=deliveries,
            sender=Sender(transport, clock),
            rules=Rules(policy=policy, schedule=Schedule(gaps=gaps), ring=RING, user_agent="test"),
            clock=clock,
            metrics=DeliveryMetrics(CollectorRegistry()),
            pace=Pace(concurrency=64, lease=45.0, attempt_limit=20.0, grace=0.1),
        )
        running = asyncio.create_task(worker.run())
        try:
            yield Process(store, network, policy, deliveries)
        finally:
            worker.stop()
            await running


DENIED = {
    "private": [["10.0.0.1"]],
    "one of several": [[PUBLIC, "10.0.0.1"]],
    "one of both families": [[PUBLIC, "2606:4700::1", "fe80::1"]],
    "loopback": [["127.0.0.1"]],
    "loopback v6": [["::1"]],
    "metadata": [["169.254.169.254"]],
    "mapped, public": [["::ffff:8.8.8.8"]],
    "translated": [["64:ff9b::808:808"]],
    "unspecified": [["0.0.0.0"]],
    "scoped": [["fe80::1%lo"]],
    "no address": [["localhost"]],
    "empty": [[""]],
    "many, the last one bad": [[*(f"8.8.8.{last}" for last in range(60)), "192.168.0.1"]],
    # What `ipaddress` calls global, or once did.
    **{
        f"{address}, beside a public one": [[PUBLIC, address]]
        for address in (
            *("100.100.100.200", "168.63.129.16", "192.0.0.192", "224.0.0.1", "255.255.255.255"),
            *("::127.0.0.1", "::ffff:7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe"),
            *("2001:0:7f00:1::", "2002:7f00:1::", "fd00:ec2::254", "fec0::1", "ff02::1"),
        )
    },
}


@pytest.mark.parametrize("answers", DENIED.values(), ids=DENIED)
async def test_dns_a_name_with_any_address_that_is_not_public(
    answers: list[list[str]], store: Store
) -> None:
    network = Network({"h.example": answers})
    async with process(store, network) as running:
        delivery = await running.owe("https://h.example/hook")
        assert await running.ended(delivery) == ("dead", "destination_not_allowed")
        assert await running.dead_letters() == [
            (delivery, "destination_not_allowed", 1, "destination_not_allowed")
        ]
    assert network.looked_up == ["h.example"]
    assert network.dialled == []


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://10.0.0.1/",
        "https://100.100.100.200/",
        "https://168.63.129.16/",
        "https://169.254.169.254/",
        "https://2130706433/",
        "https://[::1]/",
        "https://[::127.0.0.1]/",
        "https://[::ffff:7f00:1]/",
        "https://[fe80::1%25eth0]/",
        "https://[64:ff9b::a9fe:a9fe]/",
        "https://[2002:7f00:1::]/",
        "https://[fd00:ec2::254]/",
        "https://[fec0::1]/",
        "https://localhost/",
        "https://redis/",
        "http://h.example/",
        "https://h.example:22/",
        "https://u@h.example/",
    ],
)
async def test_dns_what_was_taken_in_under_other_rules_is_denied_without_a_look_up(
    url: str, store: Store
) -> None:
    network = Network({})
    async with process(store, network) as running:
        delivery = await running.owe(url)
        assert await running.ended(delivery) == ("dead", "destination_not_allowed")
    assert (network.looked_up, network.dialled) == ([], [])


async def test_dns_a_name_that_changes_is_looked_up_once_and_dialled_as_checked(
    store: Store,
) -> None:
    network = Network({"h.example": [[PUBLIC], ["127.0.0.1"]]})
    async with process(store, network) as running:
        delivery = await running.owe("https://h.example/hook")
        assert (await running.attempted(delivery)).state == "pending"
        assert network.looked_up == ["h.example"]
        assert network.dialled == [PUBLIC]
        await running.deliveries.redeliver(delivery, "token")
        again = await running.attempted(delivery, 2)
        assert (again.state, again.reason) == ("dead", "destination_not_allowed")
    assert network.looked_up == ["h.example", "h.example"]
    assert network.dialled == [PUBLIC]


async def test_dns_names_that_never_answer_hold_up_nobody(
    store: Store, start_receiver: StartReceiver
) -> None:
    receiver = await start_receiver(answers(OK))
    records = {f"{name}.example": [[PUBLIC]] for name in ("good", "new", "newer")}
    network = Network(records, reach=receiver.port)
    policy = Policy(allow_http=True, ports=None)
    async with process(store, network, policy) as running:
        # Who was reached before has slots of his own; new names share a quarter of them all, and
        # leave as many to other tenants as they hold.
        assert await running.ended(await running.owe("http://good.example/1")) == ("delivered", "")
        hanging = [await running.owe(f"http://h{number}.example/") for number in range(1_000)]
        await running.deliveries.until(lambda: network.waiting > 0)
        for url, tenant in (
            ("http://good.example/2", "acme"),
            ("http://new.example/", "globex"),
            ("http://newer.example/", "globex"),
        ):
            assert await running.ended(await running.owe(url, tenant)) == ("delivered", "")
        assert not {each.id for each in running.deliveries.ended} & set(hanging)
    assert set(network.dialled) == {PUBLIC}
