"""The settings of the HTTP API that name origins and networks."""

from __future__ import annotations

import json

import pytest

from config.sections import ApiSettings
from config.settings import SettingsError, load_settings
from tests.config.test_settings import DEVELOPMENT, PRODUCTION


def api(**environ: str) -> ApiSettings:
    """Return the API's settings in production with these variables."""
    return load_settings({**PRODUCTION, **environ}).api


@pytest.mark.parametrize(
    "origin",
    ["*", "https://app.example.com", "http://localhost:5173", "https://[2001:db8::1]:8443"],
)
def test_origins(origin: str) -> None:
    assert api(GATEWAY_API_CORS_ORIGINS=json.dumps([origin])).cors_origins == (origin,)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "app.example.com",
        "https://",
        "https://app.example.com/",
        "https://app.example.com/path",
        "https://App.example.com",
        "https://user@app.example.com",
        "https://*.example.com/*",
        "ftp://app.example.com",
        "null",
    ],
)
def test_what_is_no_origin(origin: str) -> None:
    with pytest.raises(SettingsError, match=r"api\.cors_origins"):
        api(GATEWAY_API_CORS_ORIGINS=json.dumps([origin]))


@pytest.mark.parametrize(
    ("network", "kept"),
    [("10.0.0.0/8", "10.0.0.0/8"), ("192.0.2.7", "192.0.2.7/32"), ("fd00::/8", "fd00::/8")],
)
def test_networks(network: str, kept: str) -> None:
    assert api(GATEWAY_API_TRUSTED_PROXIES=json.dumps([network])).trusted_proxies == (kept,)


@pytest.mark.parametrize("network", ["", "proxy.internal", "10.0.0.1/8", "10.0.0.0/33", "*"])
def test_what_is_no_network(network: str) -> None:
    with pytest.raises(SettingsError, match=r"api\.trusted_proxies"):
        api(GATEWAY_API_TRUSTED_PROXIES=json.dumps([network]))


def test_only_development_has_no_rate_limits() -> None:
    assert api().rate_limits
    assert (api().polls_per_minute, api().submits_per_minute) == (60, 6000)
    assert not load_settings(DEVELOPMENT).api.rate_limits


def test_variables_of_scripts_stop_no_start() -> None:
    api(GATEWAY_API_URL="http://127.0.0.1:8080", GATEWAY_API_KEY="gwk_x")
