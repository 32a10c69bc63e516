"""The whole gateway on this machine: stores, processes, and a demonstration of the main job."""

import base64
import errno
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final, get_args
from urllib.parse import urlsplit

from config import ids
from config.embedded import DataDirectory, EmbeddedError, EmbeddedServer, EmbeddedStores
from config.layers import Draft
from config.sections import Role
from config.settings import Settings, SettingsError, draft_settings, environment, load_settings
from gateway.cli.console import Console
from scripts.demo import DemoFailed, Shown, run_demo
from scripts.receiver import Callback, Receiver
from scripts.supervise import ChildSpec, SuperviseError, Supervisor, interrupted_by_signals

ROOT: Final = Path(__file__).resolve().parent.parent
BACKLOG: Final = 2048
_PROBE_SECONDS: Final = 1.0
_STORES, _API, _WORKERS = range(3)
"""Stages: the api answers before anything takes work from it."""


class UpError(Exception):
    """The gateway cannot start; the message is a sentence for whoever typed the command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `gateway up` was told."""

    once: bool
    demo: bool
    port: int | None
    data_dir: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is about to run: settled before the first child starts."""

    settings: Settings
    environ: Mapping[str, str]
    listener: socket.socket
    admin: Mapping[Role, socket.socket]
    """The sockets of the admin ports, held as the api's is."""
    local_url: str
    """Where the api answers on this machine, whatever its public URL."""
    api_key: str
    servers: Mapping[str, EmbeddedServer]
    data: Path


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
            plan = _prepare(options, environ, stack)
            return _run(plan, options, console)
    except (UpError, SettingsError, EmbeddedError, SuperviseError) as error:
        print(f"up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _prepare(options: Options, environ: dict[str, str], stack: ExitStack) -> Plan:
    if not draft_settings(environ).is_given("profile"):
        environ = {**environ, "GATEWAY_PROFILE": "development"}
    draft = draft_settings(environ)
    directory = stack.enter_context(DataDirectory(options.data_dir))
    filled = {**environ, **_secrets_and_places(draft, directory.path)}

    embedded = [name for name in ("store", "broker") if not draft.text(name, "url")]
    stores = _own_stores(directory, stack) if embedded else None
    if stores is not None:
        own_urls = {"store": stores.durable_url, "broker": stores.soft_url}
        filled |= {f"GATEWAY_{name.upper()}_URL": own_urls[name] for name in embedded}
    settings = load_settings(filled)
    servers: dict[str, EmbeddedServer] = {}
    if stores is not None:
        durable = stores.durable(maxmemory_bytes=settings.store.maxmemory_bytes)
        both = {"store": durable, "broker": stores.soft()}
        servers = {name: both[name] for name in embedded}

    port = settings.api.port if options.port is None else options.port
    option = "--port N (0 takes any free one)"
    listener = stack.enter_context(_listen(settings.api.host, port, option))
    admin = _admin_listeners(settings, draft, stack)
    local_url = _local_url(listener)
    final = {**filled, "GATEWAY_API_PORT": str(listener.getsockname()[1])}
    if settings.is_development and not draft.is_given("public_url"):
        final["GATEWAY_PUBLIC_URL"] = local_url
    settings = load_settings(final)
    return Plan(
        settings=settings,
        environ=final,
        listener=listener,
        admin=admin,
        local_url=local_url,
        api_key=settings.bootstrap_api_key.get_secret_value(),
        servers=servers,
        data=directory.path,
    )


def _own_stores(directory: DataDirectory, stack: ExitStack) -> EmbeddedStores:
    """The stores that come with the gateway; their sockets go when `stack` is unwound."""
    stores = EmbeddedStores(directory)
    stack.callback(stores.close)
    return stores


def _secrets_and_places(draft: Draft, data: Path) -> dict[str, str]:
    """What development needs and nobody set: made at the first start, kept from then on."""
    if draft.text("profile") != "development":
        return {}
    made: dict[str, str] = {}
    if not draft.text("artifacts", "url"):
        (data / "artifacts").mkdir(mode=0o700, exist_ok=True)
        made["GATEWAY_ARTIFACTS_URL"] = (data / "artifacts").as_uri()
    if not draft.text("sealing", "keys") and not draft.text("sealing", "keys_file"):
        key = base64.b64encode(ids.random_bytes(32)).decode()
        _keep(data / "sealing.key", f"dev{ids.random_text(6)}:{key}")
        made["GATEWAY_SEALING_KEYS_FILE"] = str(data / "sealing.key")
    if not draft.text("bootstrap_api_key"):
        made["GATEWAY_BOOTSTRAP_API_KEY"] = _keep(data / "api.key", f"gwk_{ids.random_text(32)}")
    return made


def _keep(path: Path, fresh: str) -> str:
    """The content of `path`, which is made with `fresh` if it is missing; for our eyes only."""
    if not path.exists():
        _write_private(path, fresh + "\n")
    return path.read_text(encoding="ascii").strip()


def _write_private(path: Path, text: str) -> None:
    """Writes the whole file or none of it, readable by nobody else."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _listen(host: str, port: int, option: str) -> socket.socket:
    """A socket of a child's, held here: its restart refuses no connection.

    Args:
        host: to listen on.
        port: to listen on; 0 takes any free one.
        option: how to choose another.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = f"port {port} is in use; choose another with {option}"
        else:
            reason = f"cannot listen on {host}, port {port}: {error.strerror or error}"
        raise UpError(reason) from error


def _admin_listeners(
    settings: Settings, draft: Draft, stack: ExitStack
) -> dict[Role, socket.socket]:
    """The admin ports; in development any free ones, unless they are given."""
    listeners: dict[Role, socket.socket] = {}
    for role in get_args(Role):
        port = settings.admin.port_of(role)
        is_given = draft.is_given("admin", f"{role}_port")
        if port or (settings.is_development and not is_given):
            setting = f"GATEWAY_ADMIN_{role.upper()}_PORT=N"
            listeners[role] = stack.enter_context(_listen(settings.admin.host, port, setting))
    return listeners


def _local_url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


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
        changed=lambda pids: _write_private(record, _run_record(plan, pids)),
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
    demonstration = _Demonstration(plan, console)
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


class _Demonstration:
    """The demonstration in a thread of its own, while the supervisor watches the children."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan = plan
        self._console = console
        self._walk = Console(plan.environ)
        """Closed at the end: what the thread has still to say then would disturb."""
        self._shown: Shown | None = None
        self._receiver_url = ""
        self.failure = ""

    @property
    def is_over(self) -> bool:
        return self._shown is not None or bool(self.failure)

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Runs it inside the block; its receiver answers until the end of the block."""
        self._console.title("One job, end to end")
        with Receiver(heard=self._heard) as receiver:
            self._receiver_url = receiver.url
            # A daemon: an interrupted run does not wait for a demonstration that hangs.
            threading.Thread(target=self._run, args=(receiver,), daemon=True).start()
            try:
                yield
            finally:
                self._walk.close()

    def show_end(self, *, stays: bool) -> None:
        """What to try next on a gateway that stays up, or where to look for what went wrong."""
        if self._shown is None:
            self._console.failed("stopped here", self.failure)
            self._console.say(f"\nThe logs are in {self._plan.data / 'log'}.")
        elif stays:
            _show_next(self._plan, self._shown, self._receiver_url, self._console)
        else:
            self._console.say("\nEverything worked. Without --once the gateway stays up.")

    def _run(self, receiver: Receiver) -> None:
        plan = self._plan
        folder = plan.data / "demo"
        try:
            self._shown = run_demo(plan.local_url, plan.api_key, receiver, self._walk, folder)
        except DemoFailed as error:
            self.failure = str(error)
        finally:
            # A fault of ours, its trace on standard error, must end the wait for it as well.
            if not self.is_over:
                self.failure = "the demonstration broke off"

    def _heard(self, callback: Callback) -> None:
        """Callbacks of jobs that the user submits to the receiver afterwards."""
        if not self.is_over:
            return
        if callback.verified:
            again = " (again)" if callback.repeated else ""
            self._walk.done("callback", f"{callback.event}  {callback.job_id}{again}")
        else:
            self._walk.failed("callback", callback.fault)


def _run_record(plan: Plan, pids: Mapping[str, int]) -> str:
    """What other commands need to find this run: scripts, tests, operators."""
    record = {
        "apiUrl": plan.local_url,
        "storeUrl": plan.settings.store.url,
        "brokerUrl": plan.settings.broker.url,
        "adminUrls": {role: _local_url(admin) for role, admin in plan.admin.items()},
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


def _show_next(plan: Plan, shown: Shown, receiver_url: str, console: Console) -> None:
    authorised = 'curl -H "Authorization: Bearer $KEY"'
    result, report = (
        url.removeprefix(shown.status_url) for url in (shown.result_url, shown.report_url)
    )
    job = {
        "type": "document.analyze",
        "input": {"text": "Any text of yours"},
        "callbackUrl": receiver_url,
    }
    console.title("Try next")
    console.say(f"  KEY={plan.api_key}")
    console.say(f"  JOB={shown.status_url}")
    console.say(f"  {authorised} $JOB")
    console.say(f"  {authorised} $JOB{result}")
    console.say(f"  {authorised} -o report.pdf $JOB{report}")
    console.say(f"  {authorised} -H 'Content-Type: application/json' \\")
    console.say(f"    {plan.local_url}/v1/jobs \\")
    body = json.dumps(job).replace(', "callbackUrl"', ',\n      "callbackUrl"')
    console.say(f"    -d '{body}'")
