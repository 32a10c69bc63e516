"""The row of amplification: what a victim's host gets, however many owe it something."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from config.store import Store
from delivery.egress import Policy
from tests.delivery.conftest import StartReceiver
from tests.delivery.test_worker import SWEEP
from tests.hostile.test_dns import PUBLIC, Network, Process, process

POLICY = Policy(allow_http=True, ports=None)
TENANTS = ("a", "b", "c", "d")
AT_ONCE = 3


@dataclass(slots=True)
class Victim:
    """A receiver's script that refuses everything, and counts how many ask it at once.

    Attributes:
        answer: what it says.
        peak: the most there were.
        enough: how many it lets gather before it answers.
    """

    answer: bytes
    enough: int = 1
    now: int = 0
    peak: int = 0
    gathered: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        self.now += 1
        self.peak = max(self.peak, self.now)
        async with self.gathered:
            self.gathered.notify_all()
            await self.gathered.wait_for(lambda: self.peak >= self.enough)
        self.now -= 1
        writer.write(self.answer)


def says(status: int, *fields: str) -> bytes:
    """Return an answer."""
    lines = [f"HTTP/1.1 {status} X", "content-length: 0", *fields, "", ""]
    return "\r\n".join(lines).encode()


async def owe_from_all(running: Process, each: int) -> list[str]:
    """Have every tenant owe the victim so many callbacks."""
    return [
        await running.owe(f"http://victim.example/{tenant}/{number}", tenant)
        for tenant in TENANTS
        for number in range(each)
    ]


async def test_amplification_a_host_is_asked_so_often_at_once_by_all_tenants_together(
    store: Store, start_receiver: StartReceiver
) -> None:
    victim = Victim(says(200), enough=AT_ONCE)
    receiver = await start_receiver(victim)
    network = Network({"victim.example": [[PUBLIC]]}, reach=receiver.port)
    async with process(store, network, POLICY, host_limit=AT_ONCE) as running:
        owed = await owe_from_all(running, 20)
        await running.deliveries.until(lambda: len(running.deliveries.ended) == len(owed))
    assert victim.peak == AT_ONCE
    assert len(receiver.requests) == len(owed)


async def test_amplification_who_fails_is_soon_left_alone(
    store: Store, start_receiver: StartReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The breaker is each endpoint's own: so many tenants, so often five failures."""
    monkeypatch.setattr(SWEEP, 0.01)
    receiver = await start_receiver(Victim(says(503)))
    network = Network({"victim.example": [[PUBLIC]]}, reach=receiver.port)
    async with process(store, network, POLICY, gaps=(0.0, 0.001), host_limit=AT_ONCE) as running:
        await owe_from_all(running, 50)
        await running.deliveries.until(lambda: len(running.deliveries.ended) >= 5 * len(TENANTS))
        asked = running.deliveries.claims
        await running.deliveries.until(lambda: running.deliveries.claims >= asked + 20)
    # What was under way when a breaker opened is over too; of 200 that wait nothing more was sent.
    assert len(receiver.requests) <= (5 + AT_ONCE) * len(TENANTS)


async def test_amplification_thousands_of_one_tenants_jobs_are_a_few_requests_to_who_fails(
    store: Store, start_receiver: StartReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SWEEP, 0.01)
    victim = Victim(says(503))
    receiver = await start_receiver(victim)
    network = Network({"victim.example": [[PUBLIC]]}, reach=receiver.port)
    async with process(store, network, POLICY, gaps=(0.0, 0.001), host_limit=AT_ONCE) as running:
        for number in range(2_000):
            await running.owe(f"http://victim.example/{number}")
        await running.deliveries.until(lambda: len(running.deliveries.ended) >= 5)
        asked = running.deliveries.claims
        await running.deliveries.until(lambda: running.deliveries.claims >= asked + 20)
    assert victim.peak <= AT_ONCE
    assert len(receiver.requests) <= 5 + AT_ONCE


@pytest.mark.parametrize(("status", "times"), [(500, 4), (410, 1)])
async def test_amplification_a_callback_has_so_many_attempts_and_410_is_the_last_word(
    status: int, times: int, store: Store, start_receiver: StartReceiver
) -> None:
    receiver = await start_receiver(Victim(says(status)))
    network = Network({"victim.example": [[PUBLIC]]}, reach=receiver.port)
    async with process(store, network, POLICY, gaps=(0.0, 0.001, 0.001, 0.001)) as running:
        owed = await running.owe("http://victim.example/hook")
        found = await running.attempted(owed, times)
        assert (found.state, found.attempts) == ("dead", times)
        assert len(receiver.requests) == times
        for head, _ in receiver.requests:
            assert b"\r\nuser-agent: test\r\n" in head.lower()
