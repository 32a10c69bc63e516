"""An api process of its own, for requests that no library would send."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from config.store import connect
from tests.conftest import RunningStores
from tests.gateway.conftest import SEALING
from tests.gateway.served import KEY, running

BEARER = b"Authorization: Bearer " + KEY.encode()
HOST = b"Host: gateway.example"
PATIENCE = 20
"""Seconds within which every request is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The process.

    Attributes:
        port: on 127.0.0.1.
        pid: its number.
        client: with a key that may do everything.
    """

    port: int
    pid: int
    client: httpx.AsyncClient

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a connection to it."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def exchange(self, sent: bytes) -> bytes:
        """Send so much on a connection of its own; return all that comes until it is closed."""
        reader, writer = await self.connect()
        got = b""
        try:
            async with asyncio.timeout(PATIENCE):
                writer.write(sent)
                while piece := await reader.read(65_536):
                    got += piece
        except ConnectionResetError:
            pass  # what was sent after the refusal is not read
        finally:
            writer.close()
        return got


@asynccontextmanager
async def api_process(stores: RunningStores, folder: Path, **environ: str) -> AsyncIterator[Api]:
    """Run an api process on an empty store; a traceback in its log fails whatever used it."""
    store = connect(stores.durable_url, max_connections=2, socket_timeout=5)
    await store.client.flushall()
    await store.close()
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    settings = {
        "GATEWAY_PROFILE": "development",
        "GATEWAY_PUBLIC_URL": url,
        "GATEWAY_STORE_URL": stores.durable_url,
        "GATEWAY_BROKER_URL": stores.soft_url,
        "GATEWAY_ARTIFACTS_URL": f"file://{folder}/artifacts",
        "GATEWAY_SEALING_KEYS": SEALING,
        "GATEWAY_BOOTSTRAP_API_KEY": KEY,
        "GATEWAY_API_FD": str(listener.fileno()),
        **environ,
    }
    with listener, running(settings, listener.fileno(), folder / "api.log") as process:
        async with httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=PATIENCE,
            trust_env=False,
        ) as client:
            assert (await client.get("/readyz")).status_code == 200
            yield Api(port=port, pid=process.pid, client=client)
            assert process.poll() is None
            assert (await client.get("/readyz")).status_code == 200
