"""`gateway dead-letters`: what was not delivered or done, why, and putting it right."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlencode

import click

from config.ids import is_id
from gateway.cli.choosing import Place, change, filters, place, query_of, scope, scope_of, split
from gateway.cli.command import Group
from gateway.cli.deliveries import say_delivery
from gateway.cli.following import Followed, conclude, follow, say_replay, summary
from gateway.cli.output import OK, cell, note, say, say_all, say_json, say_members
from gateway.cli.target import open_client

if TYPE_CHECKING:
    from gateway.client import Client

_DELIVERIES = {
    "DELIVERY": 28,
    "DIED": 20,
    "REASON": 12,
    "TRIES": 5,
    "LAST": 12,
    "ENDPOINT": 28,
    "JOB": 28,
}
_JOBS = {"JOB": 28, "FAILED": 20, "TYPE": 20, "REASON": 16, "TRIES": 5, "ERROR": 40}
_PAGE = 100
_MAX_HINTS = 10


@click.group(cls=Group, name="dead-letters", short_help="See what failed, and put it right")
def dead_letters() -> None:
    """See what was not delivered or done and why, try it again, or give it up."""


@dead_letters.command(
    "list",
    examples=(
        "gateway dead-letters list",
        "gateway dead-letters list --reason exhausted --since 2h",
        "gateway dead-letters list --kind job --limit 1000 --json",
    ),
)
@filters
@click.option(
    "--limit",
    type=click.IntRange(1, 1_000_000),
    default=100,
    show_default=True,
    help="At most so many.",
)
@place
def list_(limit: int, **options: Any) -> int:
    """List dead letters, oldest first."""
    where, given = split(options)
    with _client(where) as client:
        found = _found(client, where, given, limit)
        is_job = where.kind == "job"
        columns, cells = (_JOBS, _job_cells) if is_job else (_DELIVERIES, _delivery_cells)
        hints = _Hints()
        count = say_all(hints.taken_from(found), columns, cells, as_json=where.as_json)
    if where.as_json:
        return OK
    hints.note()
    if count == 0:
        say("No dead letters.")
    elif count == limit:
        note(f"The oldest {limit} are shown; --limit N shows more.")
    return OK


@dead_letters.command(
    examples=("gateway dead-letters stats", "gateway dead-letters stats --kind job --since 7d")
)
@filters
@place
def stats(**options: Any) -> int:
    """Count dead letters by reason, endpoint, job type and age."""
    where, given = split(options)
    query = urlencode(query_of(where, given))
    with _client(where) as client:
        found = client.ask("GET", f"/v1/dead-letters/stats?{query}")
    if where.as_json:
        say_json(found)
        return OK
    say(f"{found['total']} dead letters" + (", and more that were not counted" * found["cut"]))
    for heading, name in (("reasons", "reason"), ("types", "type"), ("ages", "age")):
        _say_counts(heading, [(each[name], each["count"]) for each in found[heading]])
    endpoints = [(each["origin"], each["count"]) for each in found["endpoints"]]
    _say_counts("endpoints", endpoints)
    return OK


@dead_letters.command(
    examples=("gateway dead-letters show msg_00…", "gateway dead-letters show rpl_00…")
)
@click.argument("id_", metavar="ID")
@place
def show(id_: str, **options: Any) -> int:
    """Show a delivery, a job or a replay, whether it is dead or not."""
    where, _ = split(options, own=True)
    paths = {"msg": "deliveries", "job": "jobs", "rpl": "replays"}
    prefix = next((each for each in paths if is_id(each, id_)), None)
    if prefix is None:
        raise click.BadParameter(f"{id_!r} is none of {', '.join(paths)}_00…", param_hint="ID")
    path = f"/v1/{paths[prefix]}/{id_}" + ("?onComplete=inline" if prefix == "job" else "")
    with _client(where) as client:
        found = client.ask("GET", path)
    match prefix:
        case _ if where.as_json:
            say_json(found)
        case "msg":
            say_delivery(found)
        case "job":
            say_members(found)
        case _:
            say_replay(found)
    return OK


@dead_letters.command(
    examples=(
        "gateway dead-letters replay msg_00…",
        "gateway dead-letters replay --all --dry-run",
        "gateway dead-letters replay --reason gone --rate 50 --stop-at-failure-rate 0.2",
        "gateway dead-letters replay --endpoint https://client.example --report replay.json",
        "gateway dead-letters replay --kind job --all --yes",
    ),
)
@scope
@click.option(
    "--rate",
    type=click.FloatRange(0.01, 100_000),
    metavar="N",
    help="At most so many a second.",
)
@click.option("--to-url", metavar="URL", help="Deliveries go there instead.")
@click.option(
    "--stop-at-failure-rate",
    "brake",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="SHARE",
    help="Stop when this share of first attempts was not taken, such as 0.2.",
)
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Afterwards wait so long for the first attempts to be over.",
)
@change
@place
@click.pass_context
def replay(
    ctx: click.Context,
    /,
    rate: float | None,
    to_url: str | None,
    brake: float | None,
    **options: Any,
) -> int:
    """Send deliveries again, or run failed jobs again.

    Say which: identifiers, a file of them, a filter, or --all. A delivery keeps its `webhook-id`,
    and its attempts begin anew, behind live traffic. What dies from now on is no part of it. Ctrl-C
    stops it cleanly, and says how to go on.
    """
    wishes = {"rate": rate, "toUrl": to_url, "stopAtFailureRate": brake}
    return _carry_out(ctx, "replay", wishes, **options)


@dead_letters.command(
    examples=(
        "gateway dead-letters purge --reason gone --dry-run",
        "gateway dead-letters purge --until 30d --yes",
    ),
)
@scope
@change
@place
@click.pass_context
def purge(ctx: click.Context, /, **options: Any) -> int:
    """Give dead letters up for good.

    Deliveries lose their bodies and attempts; failed jobs only leave the list. Say which, as for
    `replay`.
    """
    return _carry_out(ctx, "purge", {}, wait=0.0, **options)


@dead_letters.command(examples=("gateway dead-letters resume rpl_00…",))
@click.argument("replay_id", metavar="REPLAY")
@click.option("--report", type=click.File("w"), metavar="FILE", help="Keep the end as JSON.")
@place
@click.pass_context
def resume(ctx: click.Context, /, replay_id: str, report: IO[str] | None, **options: Any) -> int:
    """Go on with a replay that was cancelled or stopped.

    From where it was, with what died before it was made.
    """
    where, _ = split(options, own=True)
    if not is_id("rpl", replay_id):
        raise click.BadParameter(f"{replay_id!r} is not rpl_00…", param_hint="REPLAY")
    with _client(where) as client:
        client.ask("POST", f"/v1/replays/{replay_id}/resume")
        return _end(ctx, client, where, replay_id, report=report, wait=0.0)


def _carry_out(
    ctx: click.Context,
    action: str,
    wishes: Mapping[str, Any],
    *,
    most: int | None,
    dry_run: bool,
    yes: bool,
    report: IO[str] | None,
    wait: float,
    **options: Any,
) -> int:
    where, rest = split(options, own=True)
    body = {
        "kind": where.kind,
        "action": action,
        **scope_of(where.kind, rest),
        **{name: value for name, value in {**wishes, "max": most}.items() if value is not None},
    }
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if action == "purge" and not (yes or dry_run or is_terminal):
        raise click.UsageError("what is purged is gone: say --yes, or --dry-run to see what it is")
    with _client(where, patient=True) as client:
        if is_terminal and not yes and not dry_run and "ids" not in body:
            counted = _count_first(client, body)
            say(summary(counted))
            if not click.confirm(f"{action} these?", default=False):
                raise click.Abort
        made = client.ask("POST", "/v1/replays", {**body, "dryRun": dry_run})
        return _end(ctx, client, where, made["id"], report=report, wait=wait)


def _count_first(client: Client, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a replay would come to."""
    made = client.ask("POST", "/v1/replays", {**body, "dryRun": True})
    return follow(client, made["id"], wait=0.0, as_json=False).replay


def _end(
    ctx: click.Context,
    client: Client,
    where: Place,
    replay_id: str,
    *,
    report: IO[str] | None,
    wait: float,
) -> int:
    """Follow a replay to its end; return the exit code."""

    resume_by = shlex.join([*_words_above(ctx), "resume", replay_id, *where.words()])
    try:
        followed = follow(client, replay_id, wait=wait, as_json=where.as_json)
    except KeyboardInterrupt:
        followed = Followed(replay=_cancelled(client, replay_id))
        conclude(followed, as_json=where.as_json, report=report, resume_by=resume_by)
        raise
    return conclude(followed, as_json=where.as_json, report=report, resume_by=resume_by)


def _words_above(ctx: click.Context) -> list[str]:
    """Return the words before the name of the command that runs."""
    above = ctx.parent
    return [] if above is None else [*_words_above(above), above.info_name or ""]


def _cancelled(client: Client, replay_id: str) -> dict[str, Any]:
    """Have a replay move no more; return it, which may have been over before."""
    from gateway.client import ProblemError

    path = f"/v1/replays/{replay_id}"
    try:
        stopped: dict[str, Any] = client.ask("POST", f"{path}/cancel")
    except ProblemError:
        stopped = client.ask("GET", path)
    return stopped


def _client(where: Place, *, patient: bool = False) -> Any:
    if where.store:
        from gateway.cli.beside import open_beside

        return open_beside(where.data_dir, where.tenant)
    return open_client(where.data_dir, patient=patient)


def _found(
    client: Client, where: Place, given: Mapping[str, Any], limit: int
) -> Iterator[dict[str, Any]]:
    query = query_of(where, given)
    left = limit
    while left > 0:
        page = client.ask(
            "GET", f"/v1/dead-letters?{urlencode({**query, 'limit': min(left, _PAGE)})}"
        )
        yield from page["items"]
        left -= len(page["items"])
        if page["nextCursor"] is None:
            return
        query["cursor"] = page["nextCursor"]


def _delivery_cells(letter: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        letter["id"],
        f"{letter['diedAt'][:19]}Z",
        letter["reason"],
        letter["attemptCount"],
        _last(letter["lastAttempt"] or {}),
        letter["origin"],
        letter["jobId"],
    )


def _last(attempt: Mapping[str, Any]) -> object:
    """Return what an attempt came to: the answer's status, or else the step that failed."""
    return attempt.get("statusCode") or attempt.get("outcome")


class _Hints:
    """What the last attempts of dead letters mean, each said once however many there are."""

    def __init__(self) -> None:
        self._found: dict[str, object] = {}

    def taken_from(self, letters: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Pass dead letters on, and keep their hints."""
        for letter in letters:
            last = letter["lastAttempt"] or {}
            if last.get("hint") and len(self._found) < _MAX_HINTS:
                self._found.setdefault(last["hint"], _last(last))
            yield letter

    def note(self) -> None:
        """Say them beside the table, whose lines are dead letters alone."""
        for hint, last in self._found.items():
            note(f"{cell(last)}: {hint}")


def _job_cells(letter: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        letter["id"],
        f"{letter['diedAt'][:19]}Z",
        letter["jobType"],
        letter["reason"],
        letter["attemptCount"],
        letter["error"],
    )


def _say_counts(heading: str, counts: list[tuple[str | None, int]]) -> None:
    shown = [(name, count) for name, count in counts if count]
    if shown:
        say(heading)
    for name, count in shown:
        say(f"  {count:>8}  {cell(name)}")
