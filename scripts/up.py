"""The whole gateway on this machine: stores, processes, and a demonstration of the main job."""

import json
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from config.embedded import EmbeddedError
from config.settings import SettingsError, environment
from config.values import Role
from gateway.cli.console import Console
from scripts.demonstration import Demonstration
from scripts.plan import Options, Plan, UpError, local_url, prepare, write_private
from scripts.supervise import ChildSpec, SuperviseError, Supervisor, interrupted_by_signals

ROOT: Final = Path(__file__).resolve().parent.parent
_PROBE_SECONDS: Final = 1.0
_STORES, _API, _WORKERS = range(3)
"""Stages: the api answers before anything takes work from it."""


def main(*, once: bool, demo: bool, port: int | None, data_dir: Path) -> int:
    """Run until interrupted, or `once` until the demonstration is over; return the exit code.

    Args:
        once: whether to stop after the demonstration.
        demo: whether to run it.
        port: of the api; None for that of the settings, 0 for any free one.
        data_dir: where everything is kept.
    """
    options = Options(once=once, demo=demo, port=port, data_dir=data_dir)
    environ = environment()
    console = Console(environ)
    try:
        with ExitStack() as stack:
            plan = prepare(options, environ, stack)
            return _run(plan, options, console)
    except (UpError, SettingsError, EmbeddedError, SuperviseError) as error:
        print(f"up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _children(plan: Plan) -> list[ChildSpec]:
    environ = {**plan.environ, "PYTHONPATH": _python_path(plan.environ)}
    python = (sys.executable, "-P", "-m")

    def spec(role: Role, module: str, *arguments: str) -> ChildSpec:
        handed = _handed(plan.admin.get(role), "GATEWAY_ADMIN_FD")
        return ChildSpec(
            role=role,
            command=(*python, module, *arguments),
            environment=environ | handed,
            stage=_WORKERS,
            pass_fds=tuple(map(int, handed.values())),
        )

    stores = [
        ChildSpec(
            role=role,
            command=server.command,
            environment=environ,
            stage=_STORES,
            ready=server.answers,
        )
        for role, server in plan.servers.items()
    ]
    handed = _handed(plan.listener, "GATEWAY_API_FD")
    api = spec("api", "gateway", "api")
    api = replace(
        api,
        environment={**api.environment, **handed},
        stage=_API,
        ready=lambda: _is_live(plan.local_url),
        pass_fds=(*api.pass_fds, *map(int, handed.values())),
    )
    return [
        *stores,
        api,
        spec("relay", "gateway", "relay"),
        spec("worker", "gateway", "worker"),
        spec("delivery", "delivery"),
    ]


def _handed(listener: socket.socket | None, variable: str) -> dict[str, str]:
    """What tells a child of the socket that it is handed."""
    return {} if listener is None else {variable: str(listener.fileno())}


def _python_path(environ: Mapping[str, str]) -> str:
    """The checkout first, wherever the command was typed: another `config` there is not ours."""
    rest = environ.get("PYTHONPATH", "")
    return os.pathsep.join(filter(None, (str(ROOT), rest)))


def _is_live(api_url: str) -> bool:
    connection = HTTPConnection(urlsplit(api_url).netloc, timeout=_PROBE_SECONDS)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _run(plan: Plan, options: Options, console: Console) -> int:
    record = plan.data / "run.json"
    supervisor = Supervisor(
        _children(plan),
        log_dir=plan.data / "log",
        report=lambda line: console.failed("process", line),
        changed=lambda pids: write_private(record, _run_record(plan, pids)),
    )
    try:
        with interrupted_by_signals(supervisor), supervisor:
            console.title(f"Async request-reply gateway, {plan.settings.profile} profile")
            supervisor.start()
            code = _cut_short(options)
            if not supervisor.interrupted:
                _show_running(plan, console)
                code = _serve(plan, options, supervisor, console)
            if supervisor.interrupted:
                console.say("\nStopping; Ctrl-C again ends it at once.")
            return code
    finally:
        record.unlink(missing_ok=True)


def _cut_short(options: Options) -> int:
    """The exit code after an interrupt before the demonstration's end: --once promises that."""
    return 1 if options.once else 0


def _serve(plan: Plan, options: Options, supervisor: Supervisor, console: Console) -> int:
    if not (options.demo and plan.settings.is_development):
        if not options.once:
            console.say("\nCtrl-C stops it.")
            supervisor.run()
        return 0
    demonstration = Demonstration(plan, console)
    with demonstration.under_way():
        supervisor.run(until=lambda: demonstration.is_over)
        if supervisor.interrupted:
            return _cut_short(options)
        demonstration.show_end(stays=not options.once)
        if options.once:
            return 1 if demonstration.failure else 0
        console.say("\nCtrl-C stops it.")
        supervisor.run()
    return 0


def _run_record(plan: Plan, pids: Mapping[str, int]) -> str:
    """What other commands need to find this run: scripts, tests, operators."""
    record = {
        "apiUrl": plan.local_url,
        "storeUrl": plan.settings.store.url,
        "brokerUrl": plan.settings.broker.url,
        "adminUrls": {role: local_url(admin) for role, admin in plan.admin.items()},
        "dataDir": str(plan.data),
        "partitions": plan.settings.store.partitions,
        "pids": {"up": os.getpid(), **pids},
    }
    return json.dumps(record, indent=2) + "\n"


def _show_running(plan: Plan, console: Console) -> None:
    own = " and ".join({"store": "durable", "broker": "soft"}[role] for role in plan.servers)
    console.done("stores", f"{own}, in {plan.data}" if own else "as configured")
    console.done("api", plan.local_url)
    console.done("processes", "api, relay, worker, delivery")
    if plan.admin:
        ports = ", ".join(f"{role} {at.getsockname()[1]}" for role, at in plan.admin.items())
        console.done("admin ports", f"{plan.settings.admin.host}: {ports}")
    if plan.settings.is_development:
        console.done("api key", plan.api_key)
        console.step("policy", "callbacks to plain http and to this machine are allowed")
    else:
        console.step("policy", "callbacks to public https only; no demonstration in production")
