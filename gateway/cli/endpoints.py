"""`gateway endpoints` and `gateway secrets`: who is called back, and how it does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from gateway.cli.command import Group
from gateway.cli.options import ENDPOINT, as_json, data_dir
from gateway.cli.output import OK, note, say, say_json, say_members, table
from gateway.cli.target import open_client

_ENDPOINTS = "/v1/endpoints"
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
    if as_json:
        for each in found:
            say_json(each)
        return OK
    for line in table(_COLUMNS, map(_cells, found)):
        say(line)
    if not found:
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


def _say(data_dir: Path, method: str, endpoint_id: str, rest: str = "", *, as_json: bool) -> int:
    with open_client(data_dir) as client:
        found = client.ask(method, f"{_ENDPOINTS}/{endpoint_id}{rest}")
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
    return "broken" if found["openUntil"] else "open"
