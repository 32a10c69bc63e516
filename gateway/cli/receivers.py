"""`gateway sign` and `gateway verify`: a callback's headers, for those who write receivers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from config import ids
from config.clock import SECOND, SystemClock
from gateway.cli.command import CliError, Command
from gateway.cli.options import Number, Secret, WholeNumber, as_json, read_bytes
from gateway.cli.output import FAILED, OK, note, say, say_json

if TYPE_CHECKING:
    from gateway.receiving import Event

_STANDARD = ("whsec_", "whsk_", "whpk_")

_body = click.argument(
    "body", default="-", metavar="[BODY]", help="A file; what comes in unless given."
)
_secrets = click.option(
    "--secret",
    "secrets",
    type=Secret(),
    multiple=True,
    required=True,
    envvar="WEBHOOK_SECRET",
    help="whsec_…, whsk_…, whpk_…, or another text for X-Signature; or @FILE; WEBHOOK_SECRET unless"
    " given. May be repeated.",
)


@click.command(
    cls=Command,
    examples=(
        'gateway sign callback.json --secret "$WEBHOOK_SECRET"',
        "gateway sign callback.json --secret @receiver.secret > callback.headers",
        """echo '{"test": 1}' | gateway sign --secret @receiver.secret --id msg_1 \\
    --timestamp 1614265330 --json""",
    ),
)
@_body
@_secrets
@click.option("--id", "message_id", help="The webhook-id; a fresh one unless given.")
@click.option(
    "--timestamp",
    type=WholeNumber(0),
    metavar="SECONDS",
    help="Seconds since 1970; now unless given.",
)
@as_json
def sign(
    body: str,
    secrets: tuple[str, ...],
    message_id: str | None,
    timestamp: int | None,
    as_json: bool,
) -> int:
    """Make the headers of a callback with this body.

    Those of Standard Webhooks 1.0; with a secret of another form, X-Signature too. Needs no
    gateway. The headers come one a line, as `curl -H @-` reads them.
    """
    content = read_bytes(body)
    headers = signed(content, secrets, message_id=message_id, timestamp=timestamp)
    if as_json:
        say_json(headers)
    else:
        for name, value in headers.items():
            say(f"{name}: {value}")
    return OK


@click.command(
    cls=Command,
    examples=(
        "gateway verify callback.json --secret @receiver.secret --headers callback.headers",
        """gateway verify callback.json --secret "$WEBHOOK_SECRET" \\
    -H "webhook-id: $ID" -H "webhook-timestamp: $TIMESTAMP" -H "webhook-signature: $SIGNATURE\"""",
        """gateway verify callback.json --secret @receiver.secret --headers old.headers \\
    --tolerance 86400""",
    ),
)
@_body
@_secrets
@click.option("--headers", "header_file", metavar="FILE", help="The headers, one a line.")
@click.option(
    "-H", "--header", "header_lines", multiple=True, metavar="'NAME: VALUE'", help="One of them."
)
@click.option(
    "--tolerance",
    type=Number(0),
    metavar="SECONDS",
    help="How far the timestamp may be from now.  [default: 300]",
)
@as_json
def verify(
    body: str,
    secrets: tuple[str, ...],
    header_file: str | None,
    header_lines: tuple[str, ...],
    tolerance: float | None,
    as_json: bool,
) -> int:
    """Tell whether a callback is genuine and recent, and if not, which part of it failed.

    Needs no gateway. Ends with 0 when it is, with 1 when it is not.
    """
    from gateway.receiving import TOLERANCE, VerificationFailed

    lines = [*header_lines]
    if header_file is not None:
        lines += read_bytes(header_file).decode("latin-1").splitlines()
    headers = dict(_header(line) for line in lines if line.strip())
    content = read_bytes(body)
    try:
        limit = TOLERANCE if tolerance is None else tolerance
        event = _verified(content, headers, secrets, limit)
    except VerificationFailed as error:
        if as_json:
            fault = {"part": error.part, "fault": error.fault, "detail": str(error)}
            say_json({"genuine": False, **fault})
        else:
            note(f"not genuine: {error}")
        return FAILED
    except ValueError as error:
        raise CliError(f"--secret: {error}") from None
    if as_json:
        say_json({"genuine": True, "id": event.id, "type": event.type})
    else:
        say(f"genuine: {event.type or 'an event without a type'}  {event.id}")
    return OK


def signed(
    body: bytes,
    secrets: tuple[str, ...],
    *,
    message_id: str | None = None,
    timestamp: int | None = None,
) -> dict[str, str]:
    """Return the headers that sign `body` now.

    Raises:
        SecretError: a secret cannot sign.
    """
    from delivery.signing import sign as signature_of
    from delivery.signing import sign_body

    now = SystemClock().now()
    message_id = message_id or ids.new_id("msg", 0, now)
    seconds = now // SECOND if timestamp is None else timestamp
    headers = {"webhook-id": message_id, "webhook-timestamp": str(seconds)}
    standard, texts = _by_form(secrets)
    if standard:
        headers["webhook-signature"] = signature_of(
            standard, message_id=message_id, timestamp=seconds, body=body
        )
    if texts:
        headers["x-signature"] = sign_body(texts[0], body)
    return headers


def _verified(
    body: bytes, headers: Mapping[str, str], secrets: tuple[str, ...], tolerance: float
) -> Event:
    """Return the event in `body` once each kind of signature that there are secrets for is good.

    Raises:
        VerificationFailed, ValueError: as `gateway.receiving` does.
    """
    from gateway.receiving import verify as check
    from gateway.receiving import verify_x_signature

    standard, texts = _by_form(secrets)
    if not standard:
        return verify_x_signature(body, headers, texts)
    event = check(body, headers, standard, tolerance=tolerance)
    return verify_x_signature(body, headers, texts) if texts else event


def _by_form(secrets: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return the secrets for webhook-signature, and those for X-Signature."""
    standard = [each for each in secrets if each.startswith(_STANDARD)]
    return standard, [each for each in secrets if not each.startswith(_STANDARD)]


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon:
        raise click.BadParameter(f"{line!r} is not 'NAME: VALUE'", param_hint="--header")
    return name.strip(), value.strip()
