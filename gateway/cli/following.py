"""Following a replay to its end: how it gets on, what came of it, and the exit code."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from config.variables import environment
from gateway.cli.output import FAILED, OK, PARTLY, cell, note, say, say_json, say_members
from gateway.cli.progress import progress

if TYPE_CHECKING:
    from gateway.client import Client

_SOONEST, _LATEST = 0.1, 1.0
"""Seconds between two looks: at first, and after a while."""

_BAR = 40
"""Columns that all of them together fill in a histogram."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """A replay as it was seen last.

    Attributes:
        replay: its document.
        awaited: whether first attempts were waited for.
    """

    replay: dict[str, Any]
    awaited: bool = False


def follow(client: Client, replay_id: str, *, wait: float, as_json: bool) -> Followed:
    """Show how a replay gets on until it runs no more, and `wait` seconds for first attempts."""
    import sys

    # What programs read is the end alone.
    with progress(environment(), sys.stderr if as_json else None) as shown:
        pause = _SOONEST
        deadline: float | None = None
        while True:
            replay = client.ask("GET", f"/v1/replays/{replay_id}")
            if not as_json:
                shown.show(_percent(replay), replay["state"], _counts(replay))
            if replay["state"] != "running":
                deadline = deadline or time.monotonic() + wait
                if not _is_under_way(replay) or time.monotonic() >= deadline:
                    return Followed(replay=replay, awaited=wait > 0)
            time.sleep(pause)
            pause = min(pause * 1.2, _LATEST)


def _is_under_way(replay: Mapping[str, Any]) -> bool:
    """Tell whether first attempts are still to come."""
    counts = replay["progress"]
    return counts["attempted"] is not None and counts["attempted"] < counts["replayed"]


def _percent(replay: Mapping[str, Any]) -> float:
    if replay["state"] == "completed":
        return 100.0
    counts = replay["progress"]
    return min(99.0, 100.0 * int(counts["examined"]) / max(1, int(counts["total"])))


def _counts(replay: Mapping[str, Any]) -> str:
    counts = replay["progress"]
    if replay["dryRun"]:
        return f"{counts['matched']} counted"
    done = f"{counts['replayed']} replayed"
    if replay["action"] == "purge":
        done = f"{counts['purged']} purged"
    if counts["attempted"] is None:
        return done
    return f"{done}, {counts['delivered']} delivered, {counts['failed']} failed"


def summary(replay: Mapping[str, Any]) -> str:
    """Return what a replay came to, by reason."""
    matched = replay["progress"]["matched"]
    lines = [f"{matched} dead letters match"]
    lines += [
        f"  {count:>8}  {cell(reason):24}  {'#' * round(_BAR * count / max(1, matched))}".rstrip()
        for reason, count in replay["byReason"].items()
    ]
    return "\n".join(lines)


def say_replay(replay: Mapping[str, Any]) -> None:
    """Write a replay for people."""
    say_members(replay, leave_out=("failures",))
    for failure in replay["failures"]:
        what = failure["outcome"] or failure["reason"]
        parts = (failure["id"], failure["at"], what, failure["statusCode"], failure["hint"])
        say(f"  {'  '.join(cell(part) for part in parts if part is not None)}")


def conclude(followed: Followed, *, as_json: bool, report: IO[str] | None, resume_by: str) -> int:
    """Say how a replay ended, keep the report, and return the exit code."""
    replay = followed.replay
    if report is not None:
        json.dump(replay, report, ensure_ascii=False, indent=2)
        report.write("\n")
        report.flush()
    if as_json:
        say_json(replay)
    else:
        _say_end(replay)
    if replay["state"] in {"cancelled", "stopped"}:
        why = f" because of its {replay['reason']}" if replay["reason"] else ""
        note(f"{replay['id']} is {replay['state']}{why}. To go on: {resume_by}")
    return _exit_code(followed)


def _say_end(replay: Mapping[str, Any]) -> None:
    counts = replay["progress"]
    if replay["dryRun"]:
        say(summary(replay))
    elif replay["action"] == "purge":
        say(f"{counts['purged']} purged")
    else:
        say(f"{counts['replayed']} replayed")
    for why, count in counts["skipped"].items():
        note(f"{count} left alone: {why}")
    for failure in replay["failures"]:
        what = failure["reason"] or failure["statusCode"] or failure["outcome"]
        note(f"{failure['id']} was not taken: {what}  {failure['hint'] or ''}".rstrip())


def _exit_code(followed: Followed) -> int:
    counts = followed.replay["progress"]
    done = counts["replayed"] + counts["purged"]
    is_all = followed.replay["state"] == "completed" and not counts["skipped"]
    if followed.awaited and counts["failed"]:
        is_all = False
    if is_all:
        return OK
    return PARTLY if done or followed.replay["state"] != "completed" else FAILED
