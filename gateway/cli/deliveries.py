"""`gateway deliveries`: what became of callbacks, and sending one again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from gateway.cli.command import Group
from gateway.cli.options import DELIVERY, JOB, as_json, data_dir
from gateway.cli.output import OK, cell, done_of, note, say, say_all, say_json, say_members
from gateway.cli.target import open_client

_COLUMNS = {"DELIVERY": 28, "EVENT": 14, "STATE": 9, "WHY": 12, "TRIES": 5, "LAST": 4, "NEXT": 24}


@click.group(cls=Group, short_help="See what became of callbacks")
def deliveries() -> None:
    """See what became of callbacks, and send them again."""


@deliveries.command("list", examples=("gateway deliveries list job_00…",))
@click.argument("job_id", metavar="JOB", type=JOB)
@as_json
@data_dir
def list_(job_id: str, as_json: bool, data_dir: Path) -> int:
    """List the callbacks of a job."""
    with open_client(data_dir) as client:
        found = client.ask("GET", f"/v1/jobs/{job_id}/deliveries")["items"]
    if not say_all(found, _COLUMNS, _cells, as_json=as_json):
        note("No callbacks: the job owes none, or none yet.")
    return OK


@deliveries.command(
    examples=("gateway deliveries show msg_00…", "gateway deliveries show msg_00… --json")
)
@click.argument("delivery_id", metavar="DELIVERY", type=DELIVERY)
@as_json
@data_dir
def show(delivery_id: str, as_json: bool, data_dir: Path) -> int:
    """Show a callback and its last attempts."""
    with open_client(data_dir) as client:
        found = client.ask("GET", f"/v1/deliveries/{delivery_id}")
    if as_json:
        say_json(found)
        return OK
    say_delivery(found)
    return OK


@deliveries.command(examples=("gateway deliveries redeliver msg_00…",))
@click.argument("delivery_ids", metavar="DELIVERY...", type=DELIVERY, nargs=-1, required=True)
@as_json
@data_dir
def redeliver(delivery_ids: tuple[str, ...], as_json: bool, data_dir: Path) -> int:
    """Send callbacks now.

    One attempt for each, whatever became of it before.
    """
    from gateway.client import ProblemError

    done = 0
    with open_client(data_dir) as client:
        for delivery_id in delivery_ids:
            try:
                found = client.ask("POST", f"/v1/deliveries/{delivery_id}/redeliver")
            except ProblemError as error:
                note(f"{delivery_id}: {error}")
                continue
            done += 1
            if as_json:
                say_json(found)
            else:
                say(f"{delivery_id} is sent again")
    return done_of(done, len(delivery_ids))


def say_delivery(found: Mapping[str, Any]) -> None:
    """Write a delivery and its attempts for people."""
    say_members(found, leave_out=("attempts",))
    say(f"attempts           the last {len(found['attempts'])}")
    for attempt in found["attempts"]:
        say(f"  {_attempt(attempt)}")
        if attempt.get("answer"):
            say(f"       it said: {cell(attempt['answer'])}")


def _cells(found: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        found["id"],
        found["event"],
        found["state"],
        found["reason"],
        found["attemptCount"],
        found["lastStatusCode"],
        found["nextAttemptAt"],
    )


def _attempt(attempt: Mapping[str, Any]) -> str:
    duration = attempt.get("durationMs")
    parts = [
        f"{attempt['number']:>3}",
        cell(attempt.get("at")),
        cell(attempt.get("trigger")),
        cell(attempt.get("outcome")),
        cell(attempt.get("statusCode") or ""),
        "" if duration is None else f"{duration} ms",
        cell(attempt.get("hint") or ""),
    ]
    return "  ".join(part for part in parts if part not in {"", "-"})
