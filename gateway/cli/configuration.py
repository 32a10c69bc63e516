"""`gateway config`: whether the settings can be used, what they are, and where they come from."""

from __future__ import annotations

import json

import click

from config.variables import environment
from gateway.cli.command import CliError, Group
from gateway.cli.options import as_json
from gateway.cli.output import FAILED, OK, note, printable, say, say_json

_NAME, _VALUE = 38, 34


@click.group("config", cls=Group, short_help="Check and show the settings")
def configuration() -> None:
    """Check and show the settings that a process started here would have."""


@configuration.command(
    examples=(
        "GATEWAY_CONFIG=production.toml gateway config check",
        "GATEWAY_CONFIG=production.toml gateway config check --json",
    )
)
@as_json
def check(as_json: bool) -> int:
    """Say what is wrong with the settings.

    Reads what a process reads, handler modules included, and connects to nothing.
    """
    problems = list(_problems())
    if as_json:
        say_json({"usable": not problems, "problems": problems})
        return FAILED if problems else OK
    for problem in problems:
        note(problem)
    if problems:
        return FAILED
    say("The settings can be used.")
    return OK


@configuration.command(
    examples=(
        "gateway config show",
        "GATEWAY_CONFIG=production.toml gateway config show store sealing",
        "gateway config show delivery.gaps_seconds --json",
    )
)
@click.argument("names", nargs=-1, metavar="[NAME]...", help="Sections or settings; all if none.")
@as_json
def show(names: tuple[str, ...], as_json: bool) -> int:
    """Show every setting and where its value comes from.

    Secrets are masked.
    """
    from config.settings import draft_settings
    from config.shown import shown_settings

    draft = draft_settings(environment())
    found = [each for each in shown_settings(draft) if _is_asked(each.name, names)]
    if not found:
        raise CliError(f"there is no setting {' or '.join(names)}")
    for each in found:
        if as_json:
            say_json({"name": each.name, "value": each.value, "source": each.source})
            continue
        value = printable(json.dumps(each.value, ensure_ascii=False))
        known = "" if each.is_known else "  (no such setting)"
        say(f"{printable(each.name):{_NAME}} {value:{_VALUE}} {printable(each.source)}{known}")
    for problem in draft.problems:
        note(problem)
    return FAILED if draft.problems else OK


def _is_asked(name: str, names: tuple[str, ...]) -> bool:
    return not names or any(name == each or name.startswith(f"{each}.") for each in names)


def _problems() -> tuple[str, ...]:
    from config.settings import SettingsError, load_settings
    from config.variables import import_from
    from gateway.jobtypes import DefinitionError, Registry
    from gateway.routes import job_routes

    try:
        settings = load_settings(environment())
        import_from(settings.handlers_path)
        job_routes(settings, Registry.load(settings.jobs.modules, settings.profile))
    except SettingsError as error:
        return error.problems
    except DefinitionError as error:
        return (str(error),)
    return ()
