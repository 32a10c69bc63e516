"""What a run of `gateway up` is made of, settled before the first child starts."""

import base64
import errno
import os
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

from config import ids
from config.embedded import DataDirectory, EmbeddedServer, EmbeddedStores
from config.layers import Draft
from config.settings import Settings, draft_settings, load_settings
from config.values import Role

BACKLOG: Final = 2048


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


def prepare(options: Options, environ: dict[str, str], stack: ExitStack) -> Plan:
    """Settle what is to run, and hold what it needs until `stack` is unwound.

    Raises:
        UpError, SettingsError, EmbeddedError: it cannot.
    """
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
    if "store" in embedded and settings.store.ack == "replica":
        raise UpError("store.ack: no replica follows the store that comes along; name your own")
    servers: dict[str, EmbeddedServer] = {}
    if stores is not None:
        durable = stores.durable(maxmemory_bytes=settings.store.maxmemory_bytes)
        both = {"store": durable, "broker": stores.soft()}
        servers = {name: both[name] for name in embedded}

    port = settings.api.port if options.port is None else options.port
    option = "--port N (0 takes any free one)"
    listener = stack.enter_context(_listen(settings.api.host, port, option))
    admin = _admin_listeners(settings, draft, stack)
    url = local_url(listener)
    final = {**filled, "GATEWAY_API_PORT": str(listener.getsockname()[1])}
    if settings.is_development and not draft.is_given("public_url"):
        final["GATEWAY_PUBLIC_URL"] = url
    settings = load_settings(final)
    return Plan(
        settings=settings,
        environ=final,
        listener=listener,
        admin=admin,
        local_url=url,
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
        write_private(path, fresh + "\n")
    return path.read_text(encoding="ascii").strip()


def write_private(path: Path, text: str) -> None:
    """Write the whole file or none of it, readable by nobody else."""
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


def local_url(listener: socket.socket) -> str:
    """Return where what listens there is found on this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
