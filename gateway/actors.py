"""The actor. `dramatiq gateway.actors:set_up` runs a worker process.

There is one actor and one queue: which function a job runs is the job's business, and which job
comes next is the relay's.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import dramatiq
from dramatiq import Broker, Middleware
from dramatiq import Worker as Consumers

from config import log
from config.errors import StoreError
from config.parent import watch_forker, watch_parent
from config.settings import environment, load_settings
from gateway.broker import ACTOR, QUEUE, make_broker
from gateway.run import end_overtime, run_job
from gateway.worker import Worker

_log = logging.getLogger("gateway.worker")


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM ends the process inside the block; Dramatiq heeds it only after the start."""

    def leave(_signal: int, _frame: FrameType | None) -> None:
        _log.info("worker.stopped_while_starting")
        raise SystemExit(0)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Life(Middleware):
    """Opens what the process's threads share when Dramatiq starts it, and closes it at the end."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def before_worker_boot(self, _broker: Broker, _consumers: Consumers) -> None:
        try:
            with _stoppable():
                self._worker.start()
        except StoreError as error:
            # Dramatiq would log any other exception and go on: to work without leases.
            _log.error("worker.not_started", extra={"error": str(error)})
            raise SystemExit(1) from error

    def after_worker_boot(self, _broker: Broker, consumers: Consumers) -> None:
        self._stop_at_the_signal()
        self._worker.attend(
            lambda: all(
                thread.is_alive() for thread in (*consumers.consumers.values(), *consumers.workers)
            )
        )

    def _stop_at_the_signal(self) -> None:
        """Take no job from the signal on: Dramatiq's loop sees it up to a second later."""
        heed = signal.getsignal(signal.SIGTERM)

        def stop(number: int, frame: FrameType | None) -> None:
            self._worker.wind_down()
            if callable(heed):
                heed(number, frame)

        signal.signal(signal.SIGTERM, stop)

    def before_worker_shutdown(self, _broker: Broker, _consumers: Consumers) -> None:
        self._worker.wind_down()

    def after_worker_shutdown(self, _broker: Broker, _consumers: Consumers) -> None:
        self._worker.stop()


def set_up() -> None:
    """Make the broker and its actor for this process, as the settings say.

    Raises:
        SettingsError, DefinitionError, SealError: the process cannot start.
    """
    log.configure("worker")
    watch_parent()
    watch_forker()
    settings = load_settings(environment())
    worker = Worker(settings, lambda held: end_overtime(held, worker))
    broker = make_broker(settings, [_Life(worker)])
    dramatiq.set_broker(broker)

    def run(job_id: str) -> None:
        run_job(job_id, worker)

    dramatiq.actor(actor_name=ACTOR, queue_name=QUEUE, broker=broker)(run)
