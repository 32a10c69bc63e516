"""`python -m gateway api|relay|worker`: one process, as the settings say, until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Callable

import uvloop

from config import log, variables
from config.parent import watch_parent
from config.ports import AdminPortError
from config.settings import Settings, SettingsError, environment, load_settings
from config.store import StoreError
from delivery.configure import cancelled_by_signals, wait_for_store
from delivery.errors import DeliveryError
from gateway.errors import GatewayError


def main() -> int:
    """Run and return the exit code: 0 stopped in order, 1 could not start, 2 unusable settings."""
    parser = argparse.ArgumentParser(prog="gateway", description=__doc__)
    parser.add_argument("role", choices=sorted(_ROLES), help="what this process does")
    role: str = parser.parse_args().role
    try:
        settings = load_settings(environment())
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    log.configure(role)
    try:
        return _ROLES[role](settings)
    except asyncio.CancelledError:
        logging.getLogger(role).info("process.stopped_while_starting")
        return 0
    except (AdminPortError, StoreError, DeliveryError, GatewayError) as error:
        sys.stderr.write(f"{role}: {error}\n")
        return 1


def _api(settings: Settings) -> int:
    from gateway.app import serve  # noqa: PLC0415  each role imports only what it runs

    watch_parent()
    uvloop.run(serve(settings))
    return 0


def _relay(settings: Settings) -> int:
    watch_parent()
    uvloop.run(_run_relay(settings))
    return 0


async def _run_relay(settings: Settings) -> None:
    from config.admin import admin_port  # noqa: PLC0415
    from config.health import Health  # noqa: PLC0415
    from config.metrics import Page  # noqa: PLC0415
    from gateway.broker import make_broker  # noqa: PLC0415
    from gateway.callbacks import renderer_of  # noqa: PLC0415
    from gateway.metrics import job_numbers  # noqa: PLC0415
    from gateway.relay import Relay  # noqa: PLC0415
    from gateway.services import open_services  # noqa: PLC0415

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


def _worker(settings: Settings) -> int:
    threads = str(settings.worker.threads)
    # Read when Dramatiq is imported. It fetches as many messages as there are threads, so that a
    # job waits in the outbox, where its order still counts, and not in a worker's memory; and it
    # looks every 20 ms.
    variables.preset(dramatiq_queue_prefetch=threads, dramatiq_worker_timeout="20")
    from dramatiq.cli import main as dramatiq_main  # noqa: PLC0415
    from dramatiq.cli import make_argument_parser  # noqa: PLC0415

    from gateway.workeradmin import worker_admin  # noqa: PLC0415

    watch_parent()
    arguments = [
        "gateway.actors:set_up",
        f"--processes={settings.worker.processes}",
        f"--threads={threads}",
        "--skip-logging",
        # It hears no signal until its processes have started; nothing is forked after them here.
        "--worker-fork-timeout=1000",
    ]
    parsed = make_argument_parser().parse_args(arguments)  # type: ignore[no-untyped-call]
    with worker_admin(settings):
        return int(dramatiq_main(parsed))  # type: ignore[no-untyped-call]


_ROLES: dict[str, Callable[[Settings], int]] = {
    "api": _api,
    "relay": _relay,
    "worker": _worker,
}

if __name__ == "__main__":
    sys.exit(main())
