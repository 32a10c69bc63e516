"""The settings as they are shown: every one, masked, with where it comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import VARIABLES, draft_settings
from config.shown import MASK, Shown, shown_settings

SECRETS = {
    "bootstrap": "gwk_bootstrap",
    "sealing": "k1:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    "password": "hunter2",
    "token": "Bearer planted",
}

FILE = f"""
public_url = "https://gateway.example.com"
store.url = "rediss://:{SECRETS["password"]}@durable.example.com:6379"
delivery.ports = [443]
unheard.secret = "{SECRETS["token"]}"

[upstreams.reports]
base_url = "http://reports.internal"
headers = {{ authorization = "{SECRETS["token"]}" }}
"""


@pytest.fixture
def shown(tmp_path: Path) -> dict[str, Shown]:
    """Return the settings of a file and an environment, by name."""
    place = tmp_path / "gateway.toml"
    place.write_text(FILE)
    environ = {
        "GATEWAY_CONFIG": str(place),
        "GATEWAY_PROFILE": "development",
        "GATEWAY_BOOTSTRAP_API_KEY": SECRETS["bootstrap"],
        "GATEWAY_SEALING_KEYS": SECRETS["sealing"],
        "GATEWAY_ARTIFACTS_URL": f"s3://bucket?secret={SECRETS['password']}",
        "GATEWAY_ROUTES": '{"/api/reports" = "report.build"}',
    }
    return {each.name: each for each in shown_settings(draft_settings(environ))}


def test_no_secret_is_shown(shown: dict[str, Shown]) -> None:
    said = repr([each.value for each in shown.values()])
    for secret in SECRETS.values():
        assert secret not in said
    for name in (
        "bootstrap_api_key",
        "sealing.keys",
        "upstreams.reports.headers.authorization",
        "unheard.secret",
    ):
        assert shown[name].value == MASK, name
    assert shown["store.url"].value == "rediss://***@durable.example.com:6379"
    assert shown["artifacts.url"].value == "s3://bucket?***"
    assert shown["upstreams.reports.base_url"].value == "http://reports.internal"


def test_what_is_not_set_is_not_masked() -> None:
    empty = {each.name: each.value for each in shown_settings(draft_settings({}))}
    assert empty["bootstrap_api_key"] == ""
    assert empty["upstreams"] == {}
    assert empty["store.partitions"] == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("api.host", "defaults.toml"),
        ("delivery.allow_http", "profile development"),
        ("api.rate_limits", "profile development"),
        ("delivery.ports", "gateway.toml"),
        ("upstreams.reports.headers.authorization", "gateway.toml"),
        ("profile", "GATEWAY_PROFILE"),
        ("sealing.keys", "GATEWAY_SEALING_KEYS"),
        ('routes."/api/reports"', "GATEWAY_ROUTES"),
        ('routes."/api/documents"', "defaults.toml"),
    ],
)
def test_where_it_comes_from(shown: dict[str, Shown], name: str, source: str) -> None:
    assert shown[name].source.endswith(source)
    assert shown[name].is_known


def test_a_misspelt_one_is_said_to_be_none(shown: dict[str, Shown]) -> None:
    assert [name for name, each in shown.items() if not each.is_known] == ["unheard.secret"]


def test_every_setting_is_there(shown: dict[str, Shown]) -> None:
    for variable in VARIABLES.values():
        name = ".".join(variable.path)
        assert any(each == name or each.startswith(f"{name}.") for each in shown), name
