"""`gateway up|api|relay|worker|delivery`: processes, as the settings say, until SIGTERM.

Each exits with 0 when it was stopped in order, 1 when it could not start, 2 when its settings
cannot be used. A process imports only what it runs.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from gateway.cli.command import Role
from gateway.cli.output import FAILED, OK, USAGE

if TYPE_CHECKING:
    from types import FrameType

    from config.settings import Settings

_FILE = "GATEWAY_CONFIG=production.toml"


@click.command(
    cls=Role, examples=(f"{_FILE} gateway api", f"{_FILE} GATEWAY_API_PORT=8000 gateway api")
)
def api() -> int:
    """Take jobs in over HTTP and answer for them."""
    return _run("api", _api)


@click.command(cls=Role, examples=(f"{_FILE} gateway relay",))
def relay() -> int:
    """Tell workers what to run; bring back what was lost; let expire what is over."""
    return _run("relay", _relay)


@click.command(cls=Role, examples=(f"{_FILE} gateway worker",))
def worker() -> int:
    """Run jobs, under Dramatiq."""
    return _run("worker", _worker)


@click.command(cls=Role, examples=(f"{_FILE} gateway delivery",))
def delivery() -> int:
    """Send callbacks."""
    from delivery.__main__ import run_here

    return run_here()


def _run(role: str, run: Callable[[Settings], int]) -> int:
    from config import log
    from config.errors import StoreError
    from config.parent import watch_parent
    from config.ports import AdminPortError
    from config.settings import SettingsError, environment, load_settings
    from delivery.errors import DeliveryError
    from gateway.errors import GatewayError

    try:
        settings = load_settings(environment())
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return USAGE
    log.configure(role)
    watch_parent()
    try:
        return run(settings)
    except asyncio.CancelledError:
        logging.getLogger(role).info("process.stopped_while_starting")
        return OK
    except (AdminPortError, StoreError, DeliveryError, GatewayError) as error:
        sys.stderr.write(f"{role}: {error}\n")
        return FAILED


def _api(settings: Settings) -> int:
    import uvloop

    from gateway.app import serve

    uvloop.run(serve(settings))
    return OK


def _relay(settings: Settings) -> int:
    import uvloop

    uvloop.run(_run_relay(settings))
    return OK


async def _run_relay(settings: Settings) -> None:
    from config.admin import admin_port
    from config.health import Health
    from config.metrics import Page
    from delivery.configure import cancelled_by_signals, wait_for_store
    from gateway.broker import make_broker
    from gateway.callbacks import renderer_of
    from gateway.metrics import job_numbers
    from gateway.relay import Relay
    from gateway.services import open_services

    services = open_services(settings)
    try:
        clock, metrics = services.clock, services.metrics
        health = Health(services.store, clock)
        numbers = job_numbers(
            metrics.registry,
            services.store,
            settings.store.partitions,
            clock,
            [kind.name for kind in services.registry.types()],
        )
        page = Page(metrics.registry, numbers.refresh)
        async with admin_port(settings.admin, "relay", health, page):
            with cancelled_by_signals():
                await wait_for_store(services.store, settings)
            relay = Relay(services, make_broker(settings, []), renderer_of(services), health.beat)
            metrics.show_workers(lambda: relay.live_threads)

            def stop() -> None:
                health.drain()
                relay.stop()

            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stop)
            health.begin()
            await relay.run()
    finally:
        await services.store.close()


def _stop_starting(_number: int, _frame: FrameType | None) -> None:
    raise asyncio.CancelledError


def _worker(settings: Settings) -> int:
    # Until Dramatiq hears them.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop_starting)
    from config import variables

    threads = str(settings.worker.threads)
    # Read when Dramatiq is imported. It fetches as many messages as there are threads, so that a
    # job waits in the outbox, where its order still counts, and not in a worker's memory; and it
    # looks every 20 ms.
    variables.preset(dramatiq_queue_prefetch=threads, dramatiq_worker_timeout="20")
    from dramatiq.cli import main as dramatiq_main
    from dramatiq.cli import make_argument_parser

    from gateway.workeradmin import worker_admin

    arguments = [
        "gateway.actors:set_up",
        f"--processes={settings.worker.processes}",
        f"--threads={threads}",
        "--skip-logging",
        # It hears no signal until its processes have started; nothing is forked after them here.
        "--worker-fork-timeout=1000",
    ]
    parsed = make_argument_parser().parse_args(arguments)  # type: ignore[no-untyped-call]
    # What it means to hold back is heard by no other thread, see `start_deaf`.
    with worker_admin(settings):
        return int(dramatiq_main(parsed))  # type: ignore[no-untyped-call]
