"""Settings as a worker process has them: from its environment."""

from __future__ import annotations

import base64

import pytest

from config.settings import VARIABLES, Settings, current_settings

_DEVELOPMENT = {
    "GATEWAY_PROFILE": "development",
    "GATEWAY_STORE_URL": "redis://127.0.0.1:1",
    "GATEWAY_BROKER_URL": "redis://127.0.0.1:2",
    "GATEWAY_ARTIFACTS_URL": "file:///nowhere",
    "GATEWAY_SEALING_KEYS": "k1:" + base64.b64encode(bytes(32)).decode(),
}


def put_in_force(monkeypatch: pytest.MonkeyPatch, **settings: str) -> Settings:
    """Make this process's settings those of development, with `settings` as variables over them.

    The test that calls this must leave none behind: `forget_settings` in its module does so.
    """
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in (_DEVELOPMENT | settings).items():
        monkeypatch.setenv(name, value)
    current_settings.cache_clear()
    return current_settings()
