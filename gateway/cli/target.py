"""Which gateway a command asks, and with which key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config.variables import environment
from gateway.cli.command import CliError

if TYPE_CHECKING:
    from gateway.client import Client


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A gateway and a key for it."""

    url: str
    key: str = field(repr=False)


def find_target(data_dir: Path) -> Target:
    """Return the gateway that the environment names, or else the one that runs in `data_dir`.

    A key that `gateway up` made for its own gateway is sent to no other.

    Raises:
        CliError: there is none, or its key is not known.
    """
    environ = environment()
    url, key = environ.get("GATEWAY_API_URL", ""), environ.get("GATEWAY_API_KEY", "")
    if url and not key:
        raise CliError("GATEWAY_API_URL names a gateway, and GATEWAY_API_KEY no key for it")
    if not url:
        url = str(read_run(data_dir)["apiUrl"])
    if not key:
        key = _kept_key(data_dir)
    return Target(url=url, key=key)


def read_run(
    data_dir: Path, otherwise: str = "GATEWAY_API_URL and GATEWAY_API_KEY"
) -> dict[str, Any]:
    """Return what a running `gateway up` says of itself.

    Args:
        data_dir: of that gateway.
        otherwise: the variables that do as well.

    Raises:
        CliError: none runs there.
    """
    try:
        record: dict[str, Any] = json.loads((data_dir / "run.json").read_text("utf-8"))
        record["apiUrl"], record["storeUrl"], record["brokerUrl"], record["partitions"]
    except (OSError, ValueError, LookupError, TypeError):
        raise CliError(
            f"no gateway runs in {data_dir}: start one with `gateway up`, name its --data-dir, or"
            f" set {otherwise}"
        ) from None
    return record


def _kept_key(data_dir: Path) -> str:
    try:
        return (data_dir / "api.key").read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise CliError(f"there is no key in {data_dir}: set GATEWAY_API_KEY") from None


@contextmanager
def open_client(
    data_dir: Path, *, patient: bool = False, target: Target | None = None
) -> Iterator[Client]:
    """Open a client of the gateway to ask.

    Args:
        data_dir: of the gateway to ask unless the environment names another.
        patient: whether a gateway that goes away is waited for, as whoever follows a job does;
            who asks a question wants to know soon that there is nobody to answer.
        target: the gateway to ask, where it is known.

    Raises:
        CliError: there is no gateway to ask, or it did not answer.
    """
    from gateway.client import Client, NoAnswer, Patience

    target = target or find_target(data_dir)
    patience = Patience() if patient else Patience(attempts=3, first_pause=0.2, total=20)
    try:
        client = Client(target.url, target.key, patience=patience)
    except ValueError as error:
        raise CliError(f"GATEWAY_API_URL: {error}") from None
    with client:
        try:
            yield client
        except NoAnswer as error:
            raise CliError(f"{target.url} gives {error}") from error
