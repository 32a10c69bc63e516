"""The HTTP side on a real store: services, an application, and clients that hold keys."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from config.settings import Settings, load_settings
from config.store import Store
from gateway.app import create_app
from gateway.auth import SCOPES, Scope, make_key
from gateway.keys import KeyStore
from gateway.services import Services, services_on
from tests.conftest import RunningStores

PUBLIC_URL = "https://gateway.example"
SEALING = "one:" + base64.b64encode(b"s" * 32).decode()

MakeServices = Callable[..., Services]


@pytest.fixture
def make_services(
    store: Store, stores: RunningStores, partitions: int, tmp_path: Path
) -> MakeServices:
    """Return what makes services; settings by their environment names."""

    def make(**environ: str) -> Services:
        settings: Settings = load_settings(
            {
                "GATEWAY_PROFILE": "development",
                "GATEWAY_PUBLIC_URL": PUBLIC_URL,
                "GATEWAY_STORE_URL": stores.durable_url,
                "GATEWAY_STORE_PARTITIONS": str(partitions),
                "GATEWAY_BROKER_URL": stores.soft_url,
                "GATEWAY_ARTIFACTS_URL": f"file://{tmp_path}/artifacts",
                "GATEWAY_SEALING_KEYS": SEALING,
                "GATEWAY_JOBS_MODULES": '["gateway.handlers_.document", "gateway.handlers_.echo"]',
                **environ,
            }
        )
        return services_on(store, settings)

    return make


@pytest.fixture
def services(make_services: MakeServices) -> Services:
    """Return services with the settings of development."""
    return make_services()


@dataclass(slots=True)
class Gateway:
    """An application without a network, and clients of it."""

    services: Services
    app: Starlette

    async def client(
        self, tenant: str = "acme", scopes: frozenset[Scope] = SCOPES
    ) -> httpx.AsyncClient:
        """Return a client with a fresh key of `tenant`."""
        token, key = make_key(tenant, scopes, 0)
        await KeyStore(self.services.store).put(key)
        return self.anyone({"Authorization": f"Bearer {token}"})

    def anyone(self, headers: dict[str, str] | None = None) -> httpx.AsyncClient:
        """Return a client that sends `headers` only."""
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url=PUBLIC_URL, headers=headers)


@pytest.fixture
def gateway(services: Services) -> Gateway:
    """Return the application on the real store."""
    return Gateway(services, create_app(services))


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client that may do everything for the tenant acme."""
    async with await gateway.client() as client:
        yield client


FullStore = Callable[[], AbstractAsyncContextManager[None]]


@pytest.fixture
def full_store(store: Store) -> FullStore:
    """Return what makes the store full for a while: at its memory limit."""

    @asynccontextmanager
    async def full() -> AsyncIterator[None]:
        limit = (await store.client.config_get("maxmemory"))["maxmemory"]
        assert limit is not None
        await store.client.config_set("maxmemory", 1)
        try:
            yield
        finally:
            await store.client.config_set("maxmemory", limit)

    return full
