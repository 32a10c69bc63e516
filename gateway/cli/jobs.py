"""`gateway jobs`: submit work, follow it, stop it, run it again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import click

from config.variables import environment
from gateway.cli.command import CliError, Group
from gateway.cli.options import JOB, Instant, Json, Number, WholeNumber, as_json, data_dir
from gateway.cli.output import (
    FAILED,
    OK,
    done_of,
    note,
    say,
    say_all,
    say_json,
    say_members,
    say_pretty,
)
from gateway.cli.progress import progress
from gateway.cli.target import open_client

if TYPE_CHECKING:
    from gateway.client import Client, Job
    from gateway.client.core import SubmitOptions

_COLUMNS = {"JOB": 28, "TYPE": 18, "STATUS": 10, "DONE": 5, "CREATED": 20, "SAYS": 40}
_PAGE = 100
_WAIT_SECONDS = 3600.0


@click.group(cls=Group, short_help="Submit work and follow it")
def jobs() -> None:
    """Submit work, follow it, stop it, run it again."""


@jobs.command(
    examples=(
        """gateway jobs submit demo.echo '{"payload": 42}'""",
        """gateway jobs submit document.analyze '{"document": {"part": "paper"}}' \\
    --file paper=report.pdf --wait""",
        """gateway jobs submit demo.echo @input.json --callback https://client.example/hooks \\
    --priority high --metadata '{"order": "A-1042"}' --idempotency-key order-A-1042""",
    )
)
@click.argument("type_", metavar="TYPE", help="The job type, such as document.analyze.")
@click.argument("input_", metavar="INPUT", type=Json(), help="JSON, @FILE, or - for what comes in.")
@click.option(
    "--file",
    "named_files",
    multiple=True,
    metavar="NAME=PATH",
    help='A file that the input names as {"part": NAME}.',
)
@click.option("--callback", "callback_url", metavar="URL", help="Called back when the job ends.")
@click.option("--event", "events", multiple=True, help="What to be called back about.")
@click.option(
    "--priority", type=click.Choice(["high", "normal", "low"]), help="Among those that wait."
)
@click.option("--run-at", type=Instant(), help="Begin no earlier, such as 2030-01-31T12:00:00Z.")
@click.option(
    "--timeout",
    "timeout_seconds",
    type=Number(0),
    metavar="SECONDS",
    help="What one attempt may take.",
)
@click.option(
    "--queue-timeout",
    "queue_timeout_seconds",
    type=Number(0),
    metavar="SECONDS",
    help="How long it may wait.",
)
@click.option(
    "--result-ttl",
    "result_ttl_seconds",
    type=WholeNumber(1),
    metavar="SECONDS",
    help="How long its results are kept.",
)
@click.option("--max-attempts", type=WholeNumber(1), metavar="N", help="How often it is tried.")
@click.option("--metadata", type=Json(), help="A JSON object of yours that stays with the job.")
@click.option("--idempotency-key", metavar="KEY", help="The same key and request: the same job.")
@click.option("--wait", is_flag=True, help="Wait for its end, as `gateway jobs wait` does.")
@as_json
@data_dir
def submit(
    type_: str,
    input_: Any,
    named_files: tuple[str, ...],
    events: tuple[str, ...],
    wait: bool,
    as_json: bool,
    data_dir: Path,
    **options: Unpack[SubmitOptions],
) -> int:
    """Have work done.

    The job's identifier is all that goes to standard output.
    """
    options["files"] = dict(map(_named_file, named_files))
    if events:
        options["callback"] = {"events": list(events)}
    with open_client(data_dir, patient=wait) as client:
        job = client.submit(type_, input_, **options)
        if wait:
            return _await_end(client, job, _WAIT_SECONDS, as_json=as_json)
        if as_json:
            say_json(job.raw)
        else:
            note(f"{job.type} is {job.status}; `gateway jobs watch {job.id}` follows it")
            say(job.id)
    return OK


@jobs.command(examples=("gateway jobs get job_00…", "gateway jobs get job_00… --json"))
@click.argument("job_id", metavar="JOB", type=JOB)
@as_json
@data_dir
def get(job_id: str, as_json: bool, data_dir: Path) -> int:
    """Show how a job stands, with its results."""
    with open_client(data_dir) as client:
        job = client.get(job_id)
    if as_json:
        say_json(job.raw)
        return OK
    say_members(job.raw, leave_out=("results",))
    if job.results is not None:
        say("results")
        say_pretty(job.results)
    return OK


@jobs.command(examples=("gateway jobs wait job_00…", "gateway jobs wait job_00… --timeout 60"))
@click.argument("job_id", metavar="JOB", type=JOB)
@click.option(
    "--timeout",
    type=Number(0),
    default=_WAIT_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="Give up after that; the job goes on.",
)
@as_json
@data_dir
def wait(job_id: str, timeout: float, as_json: bool, data_dir: Path) -> int:
    """Wait until a job has ended, and show its results.

    Ends with 0 when it completed, with 1 when it failed or was cancelled.
    """
    with open_client(data_dir, patient=True) as client:
        return _await_end(client, job_id, timeout, as_json=as_json)


@jobs.command(examples=("gateway jobs watch job_00…", "gateway jobs watch job_00… --json"))
@click.argument("job_id", metavar="JOB", type=JOB)
@as_json
@data_dir
def watch(job_id: str, as_json: bool, data_dir: Path) -> int:
    """Show a job's progress as it happens, until its end.

    A bar on a terminal, else a line for each change; with --json a line for each event. Ends as
    `gateway jobs wait` does. Ctrl-C stops watching; the job goes on.
    """
    with open_client(data_dir, patient=True) as client, progress(environment()) as shown:

        def show(event: str, job: Job) -> None:
            if as_json:
                say_json({"event": event, "job": job.raw})
            else:
                shown.show(job.progress, _status(job), job.message or "")

        try:
            job = _follow(client, job_id, show)
        except KeyboardInterrupt:
            shown.close()
            note(f"{job_id} goes on")
            raise
    return _end_of(job)


@jobs.command(examples=("gateway jobs cancel job_00…",))
@click.argument("job_ids", metavar="JOB...", type=JOB, nargs=-1, required=True)
@as_json
@data_dir
def cancel(job_ids: tuple[str, ...], as_json: bool, data_dir: Path) -> int:
    """Cancel jobs.

    One that waits is cancelled at once, one at work as soon as its handler listens.
    """
    with open_client(data_dir) as client:
        return _each(job_ids, client.cancel, _cancelled, as_json=as_json)


@jobs.command(examples=("gateway jobs retry job_00…",))
@click.argument("job_ids", metavar="JOB...", type=JOB, nargs=-1, required=True)
@as_json
@data_dir
def retry(job_ids: tuple[str, ...], as_json: bool, data_dir: Path) -> int:
    """Run jobs again that failed or were cancelled.

    Each becomes a new job with the same input, one however often it is asked for.
    """
    with open_client(data_dir) as client:
        return _each(
            job_ids,
            client.retry,
            lambda job: f"{job.retry_of} runs again as {job.id}",
            as_json=as_json,
        )


@jobs.command(
    "list",
    examples=(
        "gateway jobs list",
        "gateway jobs list --status failed --type demo.echo --since 2h",
        "gateway jobs list --limit 1000 --json",
    ),
)
@click.option(
    "--status",
    type=click.Choice(["pending", "processing", "completed", "failed", "cancelled"]),
    help="In this state only.",
)
@click.option("--type", "type_", metavar="TYPE", help="Of this job type only.")
@click.option("--since", type=Instant(), help="Created at or after; 2h is two hours ago.")
@click.option("--until", type=Instant(), help="Created before.")
@click.option(
    "--limit",
    type=WholeNumber(1, 100_000),
    metavar="N",
    default=20,
    show_default=True,
    help="At most so many.",
)
@as_json
@data_dir
def list_(
    status: str | None,
    type_: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    as_json: bool,
    data_dir: Path,
) -> int:
    """List jobs, newest first."""
    with open_client(data_dir) as client:
        found = _found(client, status, type_, since, until, limit)
        if as_json:
            say_all((job.raw for job in found), _COLUMNS, _cells, as_json=True)
            return OK
        count = say_all(found, _COLUMNS, _cells, as_json=False)
    if count == 0:
        note("No jobs.")
    elif count == limit:
        note(f"The newest {limit} are shown; --limit N shows more.")
    return OK


def _named_file(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise click.BadParameter(f"{text!r} is not NAME=PATH", param_hint="--file")
    return name, path


def _await_end(client: Client, job: Job | str, timeout: float, *, as_json: bool) -> int:
    from gateway.client import JobCancelled, JobFailed

    try:
        ended = client.wait(job, timeout)
    except (JobFailed, JobCancelled) as error:
        ended = error.job
    if as_json:
        say_json(ended.raw)
        return OK if ended.status == "completed" else FAILED
    if ended.status == "completed":
        note(f"{ended.id} completed")
        say_pretty(ended.results)
    return _end_of(ended)


def _follow(client: Client, job_id: str, show: Callable[[str, Job], None]) -> Job:
    """Show each event of a job; return how it ended."""
    job: Job | None = None
    for event in client.events(job_id):
        job = event.job
        show(event.name, job)
    if job is None:
        # Its end was told before: the stream has nothing to say.
        job = client.get(job_id)
        show(job.status, job)
    return job


def _end_of(job: Job) -> int:
    """Return the exit code for what became of a job, and say why it is not 0."""
    if job.status == "completed":
        return OK
    if not job.is_ended:
        raise CliError(f"{job.id} is still {job.status}")
    why = f": {job.error} ({job.error_code})" if job.error else ""
    note(f"{job.id} {_was(job)}{why}")
    return FAILED


def _was(job: Job) -> str:
    return "was cancelled" if job.status == "cancelled" else job.status


def _status(job: Job) -> str:
    return "cancelling" if job.cancel_requested and not job.is_ended else job.status


def _cancelled(job: Job) -> str:
    return f"{job.id} {'was cancelled' if job.is_ended else 'will be cancelled'}"


def _each(
    job_ids: tuple[str, ...],
    action: Callable[[str], Job],
    line: Callable[[Job], str],
    *,
    as_json: bool,
) -> int:
    from gateway.client import ProblemError

    done = 0
    for job_id in job_ids:
        try:
            job = action(job_id)
        except ProblemError as error:
            note(f"{job_id}: {error}")
            continue
        done += 1
        if as_json:
            say_json(job.raw)
        else:
            say(line(job))
        sys.stdout.flush()
    return done_of(done, len(job_ids))


def _found(
    client: Client,
    status: str | None,
    type_: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
) -> Iterator[Job]:
    cursor, left = None, limit
    while left > 0:
        page = client.list(
            status=status,
            type=type_,
            created_after=since,
            created_before=until,
            limit=min(left, _PAGE),
            cursor=cursor,
        )
        yield from page.items
        left -= len(page.items)
        cursor = page.next_cursor
        if cursor is None:
            return


def _cells(job: Job) -> tuple[object, ...]:
    created = job.created_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return job.id, job.type, _status(job), f"{job.progress} %", created, job.error or job.message
