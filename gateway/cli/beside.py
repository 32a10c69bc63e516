"""A gateway of one's own, beside the store, for as long as a command runs.

For whoever stands beside the store when nothing else does. It is the very API, on a port of this
machine and with a key that nobody else knows; and it runs the replays that it is asked for, beside
whichever processes do so too.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from gateway.cli.command import CliError
from gateway.cli.installed import installed
from gateway.cli.target import Target, open_client

if TYPE_CHECKING:
    from config.settings import Settings
    from gateway.auth import ApiKey
    from gateway.client import Client


_PATIENCE = 10.0
"""Seconds that its end may take."""


@contextmanager
def open_beside(data_dir: Path, tenant: str | None) -> Iterator[Client]:
    """Open a client of a gateway that runs until the end of the block, in this process.

    Args:
        data_dir: of the `gateway up` whose store it is, unless the settings name another.
        tenant: for whom it speaks.

    Raises:
        CliError: the settings or the store cannot be used.
    """
    from config.ids import random_text
    from gateway.auth import DEFAULT_TENANT, TENANT, bootstrap_key

    if tenant is not None and TENANT.fullmatch(tenant) is None:
        raise CliError(f"{tenant!r} is no tenant")
    settings = settings_beside(data_dir)
    token = random_text(32)
    key = replace(bootstrap_key(token), tenant=tenant or DEFAULT_TENANT)
    with socket.create_server(("127.0.0.1", 0)) as listener, _Beside(settings, key, listener):
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with open_client(data_dir, target=Target(url=url, key=token)) as client:
            yield client


def settings_beside(data_dir: Path) -> Settings:
    """Return the settings of this process, filled in by the `gateway up` of `data_dir`.

    Raises:
        CliError: there are none that can be used.
    """
    from config.settings import SettingsError, load_settings

    try:
        return load_settings(installed(data_dir))
    except SettingsError as error:
        raise CliError(str(error)) from error


class _Beside:
    """The gateway, in a thread with an event loop of its own."""

    def __init__(self, settings: Settings, key: ApiKey, listener: socket.socket) -> None:
        self._settings = settings
        self._key = key
        self._listener = listener
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._stop: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=self._run, name="gateway-beside", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        if self._failed is not None:
            raise CliError(f"the store cannot be used: {self._failed}") from self._failed
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop()
        self._thread.join(_PATIENCE)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # noqa: BLE001  told by whoever waits
            self._failed = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        import uvicorn

        from config.tasks import background, cancel_all
        from delivery.configure import policy_of, wait_for_store
        from delivery.mover import DeliveryMover
        from delivery.runner import ReplayRunner
        from gateway.app import create_app
        from gateway.jobmover import JobMover
        from gateway.services import open_services

        services = open_services(self._settings)
        try:
            await wait_for_store(services.store, self._settings)
            app = create_app(services, operator=self._key)
            server = uvicorn.Server(
                uvicorn.Config(app, lifespan="off", log_config=None, access_log=False)
            )
            loop = asyncio.get_running_loop()

            def stop() -> None:
                server.should_exit = True

            self._stop = lambda: loop.call_soon_threadsafe(stop)
            movers = (
                DeliveryMover(
                    services.deliveries,
                    services.replays,
                    ring=services.ring,
                    policy=policy_of(self._settings),
                ),
                JobMover(services),
            )
            runners = [
                ReplayRunner(
                    store=services.store,
                    replays=services.replays,
                    mover=mover,
                    clock=services.clock,
                )
                for mover in movers
            ]
            beside = background([each for runner in runners for each in runner.loops()], stop)
            self._ready.set()
            try:
                await server.serve(sockets=[self._listener])
            finally:
                await cancel_all(beside)
        finally:
            await services.store.close()
