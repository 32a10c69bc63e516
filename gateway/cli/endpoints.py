"""`gateway endpoints`: who is called back, and how it does."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.command import CliError, Group
from gateway.cli.deliveries import say_delivery
from gateway.cli.options import ENDPOINT, as_json, data_dir
from gateway.cli.output import FAILED, OK, note, say_all, say_json, say_members
from gateway.cli.target import open_client

if TYPE_CHECKING:
    from gateway.client import Client

_ENDPOINTS = "/v1/endpoints"
_LOOKS, _LOOK_SECONDS = 60, 0.5
_COLUMNS = {"ENDPOINT": 27, "ORIGIN": 36, "STATE": 7, "LIMIT": 5, "BUSY": 5, "WAITING": 7, "OK": 24}


@click.group(cls=Group, short_help="See who is called back, pause, resume and test")
def endpoints() -> None:
    """See who is called back and how it does; hold callbacks back; try one."""


@endpoints.command("list", examples=("gateway endpoints list", "gateway endpoints list --json"))
@as_json
@data_dir
def list_(as_json: bool, data_dir: Path) -> int:
    """List the callback origins, oldest first."""
    with open_client(data_dir) as client:
        found = client.ask("GET", _ENDPOINTS)["items"]
    if not say_all(found, _COLUMNS, _cells, as_json=as_json):
        note("No endpoints: one is made by the first job with a callback URL.")
    return OK


@endpoints.command(examples=("gateway endpoints show ep_00…",))
@click.argument("endpoint_id", metavar="ENDPOINT", type=ENDPOINT)
@as_json
@data_dir
def show(endpoint_id: str, as_json: bool, data_dir: Path) -> int:
    """Show an endpoint: its health, its limits, its disabled URLs."""
    return _say(data_dir, "GET", endpoint_id, as_json=as_json)


@endpoints.command(examples=("gateway endpoints pause ep_00…",))
@click.argument("endpoint_id", metavar="ENDPOINT", type=ENDPOINT)
@as_json
@data_dir
def pause(endpoint_id: str, as_json: bool, data_dir: Path) -> int:
    """Hold an endpoint's callbacks back.

    The time does not count towards their age.
    """
    return _say(data_dir, "POST", endpoint_id, "/pause", as_json=as_json)


@endpoints.command(examples=("gateway endpoints resume ep_00…",))
@click.argument("endpoint_id", metavar="ENDPOINT", type=ENDPOINT)
@as_json
@data_dir
def resume(endpoint_id: str, as_json: bool, data_dir: Path) -> int:
    """Let an endpoint's callbacks go on."""
    return _say(data_dir, "POST", endpoint_id, "/resume", as_json=as_json)


@endpoints.command(
    examples=(
        "gateway endpoints enable ep_00… https://client.example/hooks",
        "gateway endpoints enable ep_00… --all",
    )
)
@click.argument("endpoint_id", metavar="ENDPOINT", type=ENDPOINT)
@click.argument("urls", metavar="[URL]...", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="Every URL of it that is disabled.")
@as_json
@data_dir
def enable(
    endpoint_id: str, urls: tuple[str, ...], all_: bool, as_json: bool, data_dir: Path
) -> int:
    """Call URLs again that are disabled.

    A URL is disabled when its receiver answered 410, or when somebody said so. Callbacks that died
    meanwhile are replayed by `gateway dead-letters replay`.
    """
    if bool(urls) == all_:
        raise click.UsageError("say which: URLs, or --all")
    with open_client(data_dir) as client:
        disabled = _disabled(client, endpoint_id)
        unknown = [url for url in urls if url not in disabled]
        if unknown:
            raise CliError(f"{unknown[0]} is not disabled at {endpoint_id}")
        left = [] if all_ else [url for url in disabled if url not in urls]
        return _disable(client, endpoint_id, left, as_json=as_json)


@endpoints.command(examples=("gateway endpoints disable ep_00… https://client.example/hooks/old",))
@click.argument("endpoint_id", metavar="ENDPOINT", type=ENDPOINT)
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@as_json
@data_dir
def disable(endpoint_id: str, urls: tuple[str, ...], as_json: bool, data_dir: Path) -> int:
    """Call URLs of an endpoint no more.

    Callbacks that are owed to them are dead letters from then on, because `disabled`.
    """
    with open_client(data_dir) as client:
        wanted = dict.fromkeys((*_disabled(client, endpoint_id), *urls))
        return _disable(client, endpoint_id, wanted, as_json=as_json)


@endpoints.command(
    "test",
    examples=(
        "gateway endpoints test ep_00…",
        "gateway endpoints test ep_00… --url https://client.example/hooks --event job.failed",
    ),
)
@click.argument("endpoint_id", metavar="ENDPOINT", type=ENDPOINT)
@click.option("--url", help="A URL of its origin; the root unless given.")
@click.option("--event", default="job.completed", show_default=True, help="What it tells.")
@click.option(
    "--signature",
    type=click.Choice(["v1", "v1a", "x-signature"]),
    default="v1",
    show_default=True,
    help="How it is signed.",
)
@as_json
@data_dir
def test_(
    endpoint_id: str, url: str | None, event: str, signature: str, as_json: bool, data_dir: Path
) -> int:
    """Have the gateway send a sample callback.

    It goes to the receiver as any callback does, once. Ends with 0 when the receiver took it.
    """
    wanted = {"event": event, "signature": signature} | ({} if url is None else {"url": url})
    with open_client(data_dir) as client:
        sent = client.ask("POST", f"{_ENDPOINTS}/{endpoint_id}/test", wanted)
        found = _ended(client, sent["id"])
    if as_json:
        say_json(found)
    else:
        say_delivery(found)
    return OK if found["state"] == "delivered" else FAILED


def _disabled(client: Client, endpoint_id: str) -> list[str]:
    """Return the URLs of an endpoint that are disabled."""
    found = client.ask("GET", f"{_ENDPOINTS}/{endpoint_id}")["disabledUrls"]
    return [each["url"] for each in found]


def _disable(client: Client, endpoint_id: str, urls: Iterable[str], *, as_json: bool) -> int:
    """Let these URLs of an endpoint be disabled and no others."""
    change = {"disabledUrls": list(urls)}
    return _show(client.ask("PATCH", f"{_ENDPOINTS}/{endpoint_id}", change), as_json=as_json)


def _ended(client: Client, delivery_id: str) -> Mapping[str, Any]:
    """Return a delivery once it was attempted."""
    for _ in range(_LOOKS):
        found: Mapping[str, Any] = client.ask("GET", f"/v1/deliveries/{delivery_id}")
        if found["state"] != "pending":
            return found
        time.sleep(_LOOK_SECONDS)
    raise CliError(
        f"nothing was sent within {_LOOKS * _LOOK_SECONDS:g} s: is the endpoint paused, does"
        f" `gateway delivery` run? See `gateway deliveries show {delivery_id}`"
    )


def _say(data_dir: Path, method: str, endpoint_id: str, rest: str = "", *, as_json: bool) -> int:
    with open_client(data_dir) as client:
        return _show(client.ask(method, f"{_ENDPOINTS}/{endpoint_id}{rest}"), as_json=as_json)


def _show(found: Mapping[str, Any], *, as_json: bool) -> int:
    if as_json:
        say_json(found)
    else:
        say_members(found)
    return OK


def _cells(found: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        found["id"],
        found["origin"],
        _state(found),
        found["limit"],
        found["inflight"],
        found["waiting"],
        found["succeededAt"],
    )


def _state(found: Mapping[str, Any]) -> str:
    if found["paused"]:
        return "paused"
    return "failing" if found["breaker"] == "open" else "ok"
