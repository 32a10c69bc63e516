"""The HTTP application with production's rules for URLs, and receivers that misbehave."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from config.settings import current_settings
from gateway.app import create_app
from tests.delivery.conftest import loopback, start_receiver
from tests.gateway.conftest import (
    PUBLIC_URL,
    Gateway,
    MakeServices,
    make_services,
    services,
)
from tests.gateway.in_force import put_in_force

__all__ = ["loopback", "make_services", "services", "start_receiver"]

STRICT = {
    "GATEWAY_DELIVERY_ALLOW_HTTP": "false",
    "GATEWAY_DELIVERY_ALLOW_LOOPBACK": "false",
    "GATEWAY_DELIVERY_PORTS": "[443, 8443]",
    "GATEWAY_HTTP_REQUEST_ALLOW_ANY_URL": "true",
}
MODULES = (
    '["gateway.handlers_.document", "gateway.handlers_.echo", "gateway.handlers_.http",'
    ' "gateway.handlers_.video"]'
)


@pytest.fixture
def partitions() -> int:
    """One: how a store is parted makes no difference to what is refused."""
    return 1


@pytest.fixture
async def gateway(
    make_services: MakeServices, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Gateway]:
    """Return the application as production has it, with every job type that fetches URLs."""
    put_in_force(monkeypatch, **STRICT, GATEWAY_PUBLIC_URL=PUBLIC_URL)
    made = make_services(**STRICT, GATEWAY_JOBS_MODULES=MODULES)
    yield Gateway(made, create_app(made))
    monkeypatch.undo()
    current_settings.cache_clear()


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client that may do everything for the tenant acme."""
    async with await gateway.client() as client:
        yield client
