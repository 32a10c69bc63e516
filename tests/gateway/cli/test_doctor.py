"""The doctor on real installations, well and unwell."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from config.partitions import agree_on_partitions
from config.settings import environment
from config.store import Store
from tests.conftest import RunningStores
from tests.gateway.cli.conftest import Cli
from tests.processes import eventually
from tests.replicas import pair
from tests.running import API_KEY, Gateway, inbox

KEYS = "k1:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
CHECKS = {
    "settings",
    "store",
    "persistence",
    "eviction",
    "store memory",
    "clocks",
    "broker",
    "broker memory",
    "partitions",
    "jobs",
    "callbacks",
    "dead letters",
    "sealing",
    "sealing keys",
    "data disk",
    "artifacts disk",
    "api",
}


def found(said: str) -> dict[str, str]:
    """Return the levels by check."""
    findings = [json.loads(line) for line in said.splitlines()]
    return {each["check"]: each["level"] for each in findings}


@pytest.fixture
def described(
    cli: Cli, stores: RunningStores, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> pytest.MonkeyPatch:
    """An installation that the environment describes: both stores, and nobody at work."""
    (tmp_path / "artifacts").mkdir()
    variables = {
        "GATEWAY_PROFILE": "development",
        "GATEWAY_STORE_URL": stores.durable_url,
        "GATEWAY_BROKER_URL": stores.soft_url,
        "GATEWAY_ARTIFACTS_URL": (tmp_path / "artifacts").as_uri(),
        "GATEWAY_SEALING_KEYS": KEYS,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_a_gateway_that_is_well(
    cli: Cli, whole: Gateway, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_API_KEY", API_KEY)
    # Its processes have all begun by the time that a callback has come.
    url = inbox(httpserver, "/doctor").url
    job = whole.submit(type="demo.echo", input={"payload": 1}, callbackUrl=url)
    whole.called_back(job["jobId"])
    asked = ["doctor", "--data-dir", str(whole.data)]
    levels = found(cli(*asked, "--json"))
    assert levels.keys() == CHECKS
    assert set(levels.values()) == {"ok"}
    said = cli(*asked)
    assert "✓ store" in said or "+ store" in said
    assert said.endswith("All is well.\n")


def test_nothing_runs(cli: Cli, tmp_path: Path) -> None:
    cli("doctor", "--data-dir", str(tmp_path), code=1)
    assert f"no gateway runs in {tmp_path}" in cli.err


def test_a_store_nobody_used(cli: Cli, described: pytest.MonkeyPatch) -> None:
    levels = found(cli("doctor", "--json"))
    assert (levels["partitions"], levels["api"]) == ("ok", "skipped")
    said = cli("doctor")
    assert "not asked" in said


async def test_a_store_for_other_partitions(
    cli: Cli, described: pytest.MonkeyPatch, store: Store
) -> None:
    await agree_on_partitions(store, 4)
    described.setenv("GATEWAY_STORE_PARTITIONS", "4")
    levels = found(cli.process("doctor", "--json", **_described()).stdout)
    assert (levels["jobs"], levels["callbacks"]) == ("warning", "warning")
    described.setenv("GATEWAY_STORE_PARTITIONS", "8")
    ran = cli.process("doctor", **_described())
    assert ran.returncode == 1
    assert "set store.partitions to 4" in ran.stdout
    assert "1 fault found." in ran.stdout
    assert ran.stderr == ""


def _described() -> dict[str, str]:
    return {name: value for name, value in environment().items() if name.startswith("GATEWAY_")}


def test_stores_the_wrong_way_round(
    cli: Cli, described: pytest.MonkeyPatch, stores: RunningStores
) -> None:
    described.setenv("GATEWAY_STORE_URL", stores.soft_url)
    described.setenv("GATEWAY_BROKER_URL", stores.durable_url)
    said = cli("doctor", "--json", code=1)
    assert found(said)["persistence"] == "fault"
    assert "appendonly yes" in said


def test_a_store_that_a_replica_must_follow(
    cli: Cli, described: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def replication() -> str:
        return found(cli.process("doctor", "--json", **_described()).stdout)["replication"]

    described.setenv("GATEWAY_STORE_ACK", "replica")
    with pair(tmp_path / "pair") as servers:
        described.setenv("GATEWAY_STORE_URL", servers.primary.url)
        assert replication() == "ok"
        with servers.replica.paused():
            assert eventually(lambda: replication() == "fault")
        assert eventually(lambda: replication() == "ok")
        servers.replica.kill()
        assert eventually(lambda: replication() == "fault")
        assert "no replica is connected" in cli("doctor", code=1)


def test_nobody_answers(cli: Cli, described: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        url = f"redis://127.0.0.1:{held.getsockname()[1]}"
    described.setenv("GATEWAY_STORE_URL", url)
    described.setenv("GATEWAY_ARTIFACTS_URL", (tmp_path / "none").as_uri())
    described.setenv("GATEWAY_API_URL", url.replace("redis", "http"))
    described.setenv("GATEWAY_API_KEY", API_KEY)
    levels = found(cli("doctor", "--json", code=1))
    faults = {check for check, level in levels.items() if level == "fault"}
    assert faults == {"store", "artifacts disk", "api"}


def test_keys_that_do_not_open(cli: Cli, whole: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    whole.secret("http://127.0.0.1:9/doctor")
    monkeypatch.setenv("GATEWAY_API_KEY", API_KEY)
    monkeypatch.setenv("GATEWAY_SEALING_KEYS", KEYS)
    said = cli("doctor", "--data-dir", str(whole.data), code=1)
    assert "does not open" in said
    assert "put the key that sealed it back" in said


def test_settings_that_cannot_be_used(cli: Cli, described: pytest.MonkeyPatch) -> None:
    described.setenv("GATEWAY_API_PORT", "many")
    said = cli("doctor", code=1)
    assert "api.port" in said
    assert "1 fault found." in said
