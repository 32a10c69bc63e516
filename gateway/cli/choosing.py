"""Which dead letters a command is about, where it asks, and what it may do: options they share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import click

from config.ids import is_id
from gateway.cli.options import (
    JOB,
    Callee,
    Instant,
    as_json,
    data_dir,
    default_data_dir,
    read_bytes,
)

_PREFIXES = {"delivery": "msg", "job": "job"}

Decorated = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where to ask, and how to answer.

    Attributes:
        kind: of dead letters.
        tenant: whose; None for the one that the key speaks for.
        store: whether to work on the store itself.
    """

    kind: str
    tenant: str | None
    store: bool
    as_json: bool
    data_dir: Path

    def words(self) -> list[str]:
        """Return the options that lead another command to the same place."""
        words = ["--store"] if self.store else []
        if self.tenant is not None:
            words += ["--tenant", self.tenant]
        if self.data_dir != default_data_dir():
            words += ["--data-dir", str(self.data_dir)]
        return words


def split(options: dict[str, Any], *, own: bool = False) -> tuple[Place, dict[str, Any]]:
    """Return where a command asks, and its other options.

    Args:
        options: all of them.
        own: the API does this for the tenant of the key and for no other.

    Raises:
        click.UsageError: another tenant is named all the same; or no dead letter can have the
            reason that is.
    """
    names = ("kind", "tenant", "store", "as_json", "data_dir")
    place = Place(**{name: options[name] for name in names})
    _check_reason(place.kind, options.get("reason"))
    if own and place.tenant is not None and not place.store:
        raise click.UsageError("--tenant needs --store here: a key does this for its own tenant")
    return place, {name: value for name, value in options.items() if name not in names}


def _check_reason(kind: str, reason: str | None) -> None:
    """Return when dead letters of a kind can have this reason; jobs name their own."""
    from delivery.models import Reason

    known = get_args(Reason)
    if kind == "delivery" and reason is not None and reason not in known:
        raise click.UsageError(f"no delivery is dead because {reason!r}: {', '.join(known)}")


def together(*options: Decorated) -> Callable[[Decorated], Decorated]:
    """Return a decorator that adds several options."""

    def decorate(command: Decorated) -> Decorated:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_kind = click.option(
    "--kind",
    type=click.Choice(sorted(_PREFIXES)),
    default="delivery",
    show_default=True,
    help="Callbacks that were not delivered, or jobs that failed.",
)
_store = click.option(
    "--store",
    is_flag=True,
    help="Work on the store itself, with the settings of the gateway; no process of it need run.",
)
_tenant = click.option(
    "--tenant",
    metavar="NAME",
    help="Another tenant's; of `list` and `stats` with the scope admin, of all with --store.",
)
place = together(_kind, _tenant, _store, as_json, data_dir)
filters = together(
    click.option("--reason", metavar="REASON", help="Why they are dead, such as exhausted."),
    click.option("--endpoint", type=Callee(), help="For ep_00…, or for https://its.origin."),
    click.option("--type", metavar="TYPE", help="About jobs of this type."),
    click.option("--job", type=JOB, help="About this job."),
    click.option("--since", type=Instant(), help="Died then or later; 2h is two hours ago."),
    click.option("--until", type=Instant(), help="Died earlier."),
)
scope = together(
    click.argument("ids", nargs=-1, metavar="[ID]..."),
    click.option(
        "--from-file",
        metavar="FILE",
        help="Identifiers, one a line, or what `list --json` says; - is standard input.",
    ),
    filters,
    click.option("--all", "all_", is_flag=True, help="All there are now."),
)
change = together(
    click.option("--max", "most", type=click.IntRange(min=1), metavar="N", help="At most so many."),
    click.option("--dry-run", is_flag=True, help="Count them by reason, and change nothing."),
    click.option("--yes", is_flag=True, help="Ask no questions."),
    click.option("--report", type=click.File("w"), metavar="FILE", help="Keep the end as JSON."),
)


def scope_of(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the member of a request that says which ones.

    Raises:
        click.UsageError: it was said in no way, or in several.
    """
    named = [*options["ids"], *_listed_in(options["from_file"])]
    filter_ = filter_of(options)
    said = [bool(options["ids"]), options["from_file"] is not None, bool(filter_), options["all_"]]
    if sum(said) != 1:
        raise click.UsageError("say which: identifiers, --from-file, a filter, or --all")
    if options["all_"]:
        return {"all": True}
    if filter_:
        return {"filter": filter_}
    prefix = _PREFIXES[kind]
    for each in named:
        if not is_id(prefix, each):
            raise click.UsageError(f"{each!r} is not a {kind}: one looks like {prefix}_00…")
    if not named:
        raise click.UsageError("the file names none")
    return {"ids": list(dict.fromkeys(named))}


def _listed_in(name: str | None) -> Iterator[str]:
    if name is None:
        return
    for line in read_bytes(name).decode("utf-8", "replace").splitlines():
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if not text.startswith("{"):
            yield text.split()[0]
            continue
        try:
            yield str(json.loads(text)["id"])
        except (ValueError, LookupError) as error:
            raise click.UsageError(f"{name} has a line without an id: {text[:60]}") from error


def filter_of(options: Mapping[str, Any]) -> dict[str, str]:
    """Return what the filters say, as the API has it."""
    given = {
        **{name: options.get(name) for name in ("reason", "endpoint", "type", "job")},
        "diedAfter": _instant(options.get("since")),
        "diedBefore": _instant(options.get("until")),
    }
    return {name: value for name, value in given.items() if value is not None}


def _instant(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat()


def query_of(place: Place, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same as the parameters of a query."""
    query: dict[str, Any] = {"kind": place.kind, **filter_of(given)}
    if place.tenant is not None and not place.store:
        query["tenant"] = place.tenant
    return query
