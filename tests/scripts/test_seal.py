"""The operator's script for sealing keys, on a store that a gateway has used."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import pytest

from config.settings import environment
from config.store import Store, agree_on_partitions, connect
from delivery.egress import Policy, parse_destination
from delivery.endpoints import register
from delivery.sealing import KeyRing
from delivery.store import DeliveryStore
from scripts.seal import main
from tests.conftest import RunningStores
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
def used(stores: RunningStores, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Have the environment describe an installation whose store holds three endpoints."""
    for name in [name for name in environment() if name.startswith("GATEWAY_")]:
        monkeypatch.delenv(name)
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


def status(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, object]]:
    """Run a command and return its exit code and what it said for programs."""
    code = main([*arguments, "--json"])
    said: dict[str, object] = json.loads(capsys.readouterr().out)
    return code, said


@pytest.mark.usefixtures("used")
def test_a_rotation_from_its_beginning_to_its_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing: dict[str, object] = {
        "disabled URLs": {},
        "deliveries": {},
        "replays": {},
        "jobs": {},
    }
    assert status(capsys, "status") == (
        0,
        {"first": "one", "sealed": {"signing secrets": {"one": 3}, **nothing}},
    )
    monkeypatch.setenv("GATEWAY_SEALING_KEYS", f"{NEW},{SEALING}")
    code, said = status(capsys, "status")
    assert (code, said["first"]) == (3, "two")
    assert main(["rewrap"]) == 0
    out = capsys.readouterr().out
    assert "3 sealed anew" in out
    assert "signing secrets       two                                 3             is the" in out
    monkeypatch.setenv("GATEWAY_SEALING_KEYS", NEW)
    assert status(capsys, "status") == (
        0,
        {"first": "two", "sealed": {"signing secrets": {"two": 3}, **nothing}},
    )


@pytest.mark.usefixtures("used")
def test_a_key_that_is_missing_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_SEALING_KEYS", NEW)
    assert main(["rewrap"]) == 3
    told = capsys.readouterr()
    assert "one                                 3             is missing" in told.out
    assert "seal: 3 cannot be opened, of ep_00" in told.err


def test_what_cannot_be_is_a_sentence(
    used: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(_fill(used, agreed=False))
    assert main(["status"]) == 1
    assert capsys.readouterr().err == "seal: this store was never used by the gateway\n"
    monkeypatch.setenv("GATEWAY_SEALING_KEYS", "")
    assert main(["status"]) == 1
    assert "sealing.keys: must be set" in capsys.readouterr().err
    monkeypatch.delenv("GATEWAY_STORE_URL")
    assert main(["status", "--data-dir", "/nonexistent"]) == 1
    assert "set GATEWAY_STORE_URL" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["rotate"], ["status", "x"]])
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err
