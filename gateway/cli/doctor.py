"""`gateway doctor`: what is wrong with an installation, and what to do about it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from config.variables import environment
from gateway.cli.command import CliError, Command
from gateway.cli.options import as_json, data_dir
from gateway.cli.output import FAILED, OK, printable, say_json

if TYPE_CHECKING:
    from gateway.cli.findings import Finding


@click.command(
    cls=Command,
    examples=("gateway doctor", "GATEWAY_CONFIG=production.toml gateway doctor --json"),
)
@as_json
@data_dir
def doctor(as_json: bool, data_dir: Path) -> int:
    """Say what is wrong with the installation, and what to do.

    Looks at the settings, both stores, clocks, the queue, callbacks, sealing keys, disks and the
    api: of the installation that the environment describes, or else of the `gateway up` that runs
    in the data directory. Changes nothing. Ends with 1 when it found a fault.
    """
    return asyncio.run(_report(data_dir, as_json=as_json))


async def _report(data_dir: Path, *, as_json: bool) -> int:
    from gateway.cli.console import Console

    console = Console(environment())
    shows = {
        "ok": console.done,
        "warning": console.warned,
        "fault": console.failed,
        "skipped": console.step,
    }
    faults = warnings = 0
    async for finding in _findings(data_dir):
        faults += finding.level == "fault"
        warnings += finding.level == "warning"
        if as_json:
            say_json(asdict(finding))
            continue
        shows[finding.level](finding.check, printable(finding.says))
        if finding.advice:
            console.say(f"      → {printable(finding.advice)}")
    if not as_json:
        console.say(f"\n{_sum(faults, warnings)}")
    return FAILED if faults else OK


async def _findings(data_dir: Path) -> AsyncIterator[Finding]:
    from config.settings import SettingsError, load_settings
    from gateway.cli.examination import examine
    from gateway.cli.findings import Finding
    from gateway.cli.installed import installed

    try:
        settings = load_settings(installed(data_dir))
    except SettingsError as error:
        for problem in error.problems:
            yield Finding("settings", "fault", problem, "see `gateway config show`")
        return
    yield Finding("settings", "ok", f"can be used, {settings.profile} profile")
    async for finding in examine(settings, data_dir):
        yield finding
    yield await asyncio.to_thread(_api, data_dir)


def _api(data_dir: Path) -> Finding:
    from gateway.cli.findings import Finding
    from gateway.cli.target import find_target, open_client
    from gateway.client import GatewayClientError

    try:
        target = find_target(data_dir)
    except CliError:
        says = "not asked: GATEWAY_API_URL and GATEWAY_API_KEY do not name it"
        return Finding("api", "skipped", says)
    try:
        with open_client(data_dir) as client:
            found = client.ask("GET", "/v1/job-types")["items"]
    except (CliError, GatewayClientError) as error:
        advice = "see whether `gateway api` runs, and whether the key is right"
        return Finding("api", "fault", str(error), advice)
    return Finding("api", "ok", f"{target.url} answers, with {len(found)} job types")


def _sum(faults: int, warnings: int) -> str:
    if faults == warnings == 0:
        return "All is well."
    counts = ((faults, "fault"), (warnings, "warning"))
    words = [f"{count} {noun}{'s' * (count > 1)}" for count, noun in counts if count]
    return f"{' and '.join(words)} found."
