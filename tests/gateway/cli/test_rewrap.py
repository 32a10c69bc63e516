"""Sealing anew by the command line, on a store that a gateway has used."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import pytest

from config.clock import SystemClock
from config.partitions import agree_on_partitions
from config.settings import environment, load_settings
from config.store import Store, connect
from delivery.egress import Policy, parse_destination
from delivery.endpoints import register
from delivery.sealing import KeyRing
from delivery.store import DeliveryStore
from gateway.audit import AuditLog
from gateway.auth import DEFAULT_TENANT
from tests.conftest import RunningStores
from tests.gateway.cli.conftest import Cli
from tests.gateway.conftest import SEALING

NEW = "two:" + base64.b64encode(b"n" * 32).decode()


async def _fill(url: str, *, agreed: bool) -> None:
    store: Store = connect(url, max_connections=2, socket_timeout=5)
    try:
        await store.client.flushall()
        if not agreed:
            return
        await agree_on_partitions(store, 1)
        deliveries = DeliveryStore(store, 1)
        for number in range(3):
            destination = parse_destination(f"https://host-{number}.example/", Policy())
            registration = register("acme", destination, KeyRing.parse(SEALING), 1)
            await deliveries.register_endpoint(registration)
    finally:
        await store.close()


@pytest.fixture
def used(cli: Cli, stores: RunningStores, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Have the environment describe an installation whose store holds three endpoints."""
    values = {
        "PROFILE": "development",
        "STORE_URL": stores.durable_url,
        "BROKER_URL": stores.soft_url,
        "ARTIFACTS_URL": f"file://{tmp_path}",
        "SEALING_KEYS": SEALING,
    }
    for name, value in values.items():
        monkeypatch.setenv(f"GATEWAY_{name}", value)
    asyncio.run(_fill(stores.durable_url, agreed=True))
    return stores.durable_url


def status(cli: Cli, code: int) -> dict[str, object]:
    """Return what is sealed under which key, as a program is told."""
    said: dict[str, object] = json.loads(cli("secrets", "rewrap", "--dry-run", "--json", code=code))
    return said


@pytest.mark.usefixtures("used")
def test_a_rotation_from_its_beginning_to_its_end(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing: dict[str, object] = {
        "disabled URLs": {},
        "deliveries": {},
        "replays": {},
        "jobs": {},
    }
    before = {"first": "one", "sealed": {"signing secrets": {"one": 3}, **nothing}}
    assert status(cli, 0) == before
    monkeypatch.setenv("GATEWAY_SEALING_KEYS", f"{NEW},{SEALING}")
    assert status(cli, 3) == {**before, "first": "two"}
    out = cli("secrets", "rewrap")
    assert "3 sealed anew" in out
    assert "signing secrets       two                                 3             is the" in out
    monkeypatch.setenv("GATEWAY_SEALING_KEYS", NEW)
    assert status(cli, 0) == {"first": "two", "sealed": {"signing secrets": {"two": 3}, **nothing}}
    again = json.loads(cli("secrets", "rewrap", "--json"))
    assert (again["rewrapped"], again["unreadable"]) == (0, 0)


async def recorded(url: str) -> list[tuple[str, str]]:
    """Return what the audit log of the tenant `default` tells of, with the keys it names."""
    store = connect(url, max_connections=2, socket_timeout=5)
    try:
        log = AuditLog(store, SystemClock(), load_settings(environment()).api)
        found, _ = await log.read(DEFAULT_TENANT, after=None, limit=9)
        return [(each.action, each.target) for each in found]
    finally:
        await store.close()


def test_that_it_was_done_is_on_record(cli: Cli, used: str) -> None:
    cli("secrets", "rewrap", "--dry-run")
    assert asyncio.run(recorded(used)) == []
    cli("secrets", "rewrap")
    assert asyncio.run(recorded(used)) == [("sealing.rewrap", "one")]


@pytest.mark.usefixtures("used")
def test_a_key_that_is_missing_is_said(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_SEALING_KEYS", NEW)
    out = cli("secrets", "rewrap", code=3)
    assert "one                                 3             is missing" in out
    assert cli.err.startswith("3 cannot be opened, of ep_00")


def test_what_cannot_be_is_a_sentence(used: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("secrets", "rewrap", "--dry-run")
    asyncio.run(_fill(used, agreed=False))
    cli(*asked, code=1)
    assert cli.err == "gateway secrets rewrap: this store was never used by the gateway\n"
    monkeypatch.setenv("GATEWAY_SEALING_KEYS", "")
    cli(*asked, code=1)
    assert "sealing.keys: must be set" in cli.err
    monkeypatch.delenv("GATEWAY_STORE_URL")
    cli(*asked, "--data-dir", "/nonexistent", code=1)
    assert "set GATEWAY_STORE_URL" in cli.err
    cli(*asked, "x", code=2)
