"""`gateway config` from outside."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from config.settings import environment
from tests.gateway.cli.conftest import Cli
from tests.running import ROOT

KEYS = "k1:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


WITHOUT_PACKAGES = """
import sys
sys.modules["opentelemetry"] = None  # as if it was not installed
from gateway.cli.main import main
sys.exit(main())
"""


@pytest.fixture
def usable(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line with settings that can be used."""
    variables = {
        "GATEWAY_PROFILE": "development",
        "GATEWAY_STORE_URL": "redis://durable.example",
        "GATEWAY_BROKER_URL": "redis://soft.example",
        "GATEWAY_ARTIFACTS_URL": tmp_path.as_uri(),
        "GATEWAY_SEALING_KEYS": KEYS,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return cli


def test_settings_that_can_be_used(usable: Cli) -> None:
    assert usable("config", "check") == "The settings can be used.\n"
    said = usable("config", "check", "--json")
    assert json.loads(said) == {"usable": True, "problems": []}


def test_everything_that_is_wrong_is_said(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_API_PROT", "1")
    monkeypatch.setenv("GATEWAY_API_PORT", "many")
    assert cli("config", "check", code=1) == ""
    assert "did you mean GATEWAY_API_PORT?" in cli.err
    assert "api.port: " in cli.err
    said = json.loads(cli("config", "check", "--json", code=1))
    assert not said["usable"]
    assert len(said["problems"]) == len(cli("config", "check", code=1).splitlines()) + 2


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("GATEWAY_JOBS_MODULES", '["nowhere_at_all"]', "nowhere_at_all"),
        ("GATEWAY_ROUTES", '{"/api/reports" = "report.build"}', "routes./api/reports"),
    ],
)
def test_handlers_are_loaded(
    usable: Cli, monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(name, value)
    usable("config", "check", code=1)
    assert says in usable.err


def test_packages_are_looked_for(usable: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_TRACING_ENDPOINT", "http://127.0.0.1:4318")
    assert usable("config", "check") == "The settings can be used.\n"
    said = subprocess.run(
        [sys.executable, "-c", WITHOUT_PACKAGES, "config", "check"],
        env=environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 1
    assert "tracing.endpoint: " in said.stderr
    assert "scripts/setup otel" in said.stderr


def test_settings_are_shown(usable: Cli) -> None:
    said = usable("config", "show", "sealing", "api.port")
    assert [line.split() for line in said.splitlines()] == [
        ["api.port", "8080", "defaults.toml"],
        ["sealing.keys", '"***"', "GATEWAY_SEALING_KEYS"],
        ["sealing.keys_file", '""', "defaults.toml"],
    ]
    [line] = usable("config", "show", "delivery.gaps_seconds", "--json").splitlines()
    assert json.loads(line)["value"][:2] == [0, 5]
    assert KEYS not in usable("config", "show")
    usable("config", "show", "nothing", code=1)
    assert "there is no setting nothing" in usable.err


def test_unusable_settings_are_shown_too(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_CONFIG", "/nowhere.toml")
    assert "public_url" in cli("config", "show", code=1)
    assert "cannot read /nowhere.toml" in cli.err


@pytest.mark.parametrize("role", ["api", "relay", "worker", "delivery"])
def test_no_process_starts_with_unusable_settings(cli: Cli, role: str) -> None:
    cli(role, code=2)
    assert "public_url: must be set" in cli.err
